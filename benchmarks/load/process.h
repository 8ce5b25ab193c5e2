/* Clocks and the size of processes. */
#pragma once
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

/* Say what went wrong as JSON, where the caller reads the result, and end. */
static void fail(const char *format, ...) {
    char text[512];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    for (char *c = text; *c; c++)
        if (*c < ' ' || *c == '"' || *c == '\\') *c = ' ';
    printf("{\"error\": \"%s\"}\n", text);
    exit(1);
}

static uint64_t clock_ns(clockid_t clock) {
    struct timespec t;
    if (clock_gettime(clock, &t)) fail("the clock of a process cannot be read: has the server ended?");
    return (uint64_t)t.tv_sec * 1000000000ull + (uint64_t)t.tv_nsec;
}

static uint64_t now_ns(void) { return clock_ns(CLOCK_MONOTONIC); }

/* CPU seconds of a process with all its threads; 0 for pid 0. The same count as /proc/PID/stat, without its 10 ms steps. */
static double cpu_s(int pid) {
    clockid_t clock;
    if (!pid) return 0;
    if (clock_getcpuclockid(pid, &clock)) fail("process %d is not there", pid);
    return (double)clock_ns(clock) / 1e9;
}

static double own_cpu_s(void) { return (double)clock_ns(CLOCK_PROCESS_CPUTIME_ID) / 1e9; }

static long rss_kb(int pid) {
    char line[256];
    long kb = 0;
    snprintf(line, sizeof line, "/proc/%d/status", pid);
    FILE *file = pid ? fopen(line, "r") : NULL;
    if (!file) return 0;
    while (fgets(line, sizeof line, file))
        if (sscanf(line, "VmRSS: %ld", &kb) == 1) break;
    fclose(file);
    return kb;
}
