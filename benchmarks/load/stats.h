/* What wsload counts: latencies in a histogram, deliveries in a bitmap for each subscriber. */
#pragma once
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

/* Log-linear: 64 steps for each power of two, so a percentile is at most 1.6 % off. */
enum { STEP_BITS = 6, STEPS = 1 << STEP_BITS, BUCKETS = (64 - STEP_BITS + 1) * STEPS };

typedef struct {
    uint64_t count, max, bucket[BUCKETS];
} Histogram;

static void record(Histogram *h, uint64_t ns) {
    int shift = ns < STEPS ? 0 : 63 - __builtin_clzll(ns) - STEP_BITS;
    int row = ns < STEPS ? 0 : shift + 1;
    h->bucket[row * STEPS + ((ns >> shift) & (STEPS - 1))]++;
    h->count++;
    if (ns > h->max) h->max = ns;
}

static double percentile_ms(const Histogram *h, double share) {
    uint64_t wanted = (uint64_t)(share * (double)h->count), passed = 0;
    for (int i = 0; i < BUCKETS && h->count; i++) {
        passed += h->bucket[i];
        if (passed <= wanted) continue;
        uint64_t shift = i < STEPS ? 0 : i / STEPS - 1, low = i < STEPS ? 0 : (uint64_t)STEPS << shift;
        return (double)(low + ((uint64_t)(i % STEPS) << shift)) / 1e6;
    }
    return (double)h->max / 1e6;
}

typedef struct {
    uint64_t *words;
    size_t length;
} Seen;

/* Note a message number; return 1 if it has been seen before. */
static int seen_before(Seen *s, uint64_t number) {
    size_t word = number >> 6;
    uint64_t bit = 1ull << (number & 63);
    if (word >= s->length) {
        size_t length = word + 1 > 2 * s->length ? word + 16 : 2 * s->length;
        s->words = realloc(s->words, length * sizeof *s->words);
        if (!s->words) abort();
        memset(s->words + s->length, 0, (length - s->length) * sizeof *s->words);
        s->length = length;
    }
    int before = (s->words[word] & bit) != 0;
    s->words[word] |= bit;
    return before;
}
