/* wsload: a WebSocket load client on epoll, one thread, so that the client is not what is measured.
 *
 * Opens --subs subscribers and --pubs publishers, sends each its opening messages, waits for the answers, then publishes
 * for --seconds in one of three ways:
 *   closed loop   at most --window messages in flight; one is done when all its deliveries have arrived (default);
 *   --rate R      R messages a second whatever comes back; a message's latency counts from when it was due;
 *   --ack MARK    each publisher sends its next message when the ack of its last has arrived.
 * Every delivery of every message is checked: none lost, none twice, none to the wrong subscriber. The result is one line
 * of JSON (after --stall seconds without any delivery, what is missing is lost), with the CPU seconds of the server (--pid), of a broker (--broker) and of this client.
 *
 * Templates: %d number of the connection, %g its topic (number modulo --topics; for a publish: of the message), %s number
 * of the message, %m stamp by which deliveries are recognised, %p padding of --size bytes.
 *
 * Build: cc -O2 -o wsload wsload.c (Linux)
 */
#define _GNU_SOURCE
#include <getopt.h>
#include <sys/resource.h>
#include <sys/timerfd.h>

#include "connection.h"

#define SAMPLED_FROM 50 /* connections open before memory is first read: the first ones pay for imports and pools */

static struct {
    int subs, pubs, size, window, topics, everything, dialing, rate, pid, broker;
    long sub_frames, pub_frames;
    double seconds, warm_s, stall_s;
    const char *sub[8], *hello[8], *publish, *ack, *ping, *pong;
    int sub_count, hello_count;
} opt = {.subs = 100, .pubs = 1, .size = 64, .window = 1, .topics = 1, .dialing = 32, .seconds = 3, .warm_s = 0.5, .stall_s = 15};

static Connection *all, **idle;
static int idle_count, timer;
static long opened, settled, sent, delivered, twice, stray, acked, wrong_acks;
static int64_t per_message;
static uint64_t origin, progress;
static int stalled;
static Histogram latency, ack_latency, lateness;

typedef struct { uint64_t at; double server, broker, own; long rss; long sent, delivered, acked; } Sample;

static Sample sample(void) {
    return (Sample){now_ns(), cpu_s(opt.pid), cpu_s(opt.broker), own_cpu_s(), rss_kb(opt.pid), sent, delivered, acked};
}

static size_t expand(char *out, const char *template, int number, int topic, long message, uint64_t due) {
    char *w = out;
    for (const char *r = template; *r; r++) {
        if (*r != '%') { *w++ = *r; continue; }
        switch (*++r) {
            case 'd': w += sprintf(w, "%d", number); break;
            case 'g': w += sprintf(w, "%d", topic); break;
            case 's': w += sprintf(w, "%ld", message); break;
            case 'm': w += sprintf(w, "@%ld@%012lu@", message, (unsigned long)(due - origin)); break;
            case 'p': memset(w, 'x', (size_t)opt.size), w += opt.size; break;
            default: *w++ = '%', r--;
        }
    }
    return (size_t)(w - out);
}

static void say(Connection *c, const char *template) {
    static char text[1 << 16];
    send_frame(c, 1, text, expand(text, template, c->number, c->number % opt.topics, 0, origin));
}

static void on_opened(Connection *c) {
    opened++;
    const char **messages = c->publisher ? opt.hello : opt.sub;
    int count = c->publisher ? opt.hello_count : opt.sub_count;
    for (int i = 0; i < count; i++) say(c, messages[i]);
    if (!(c->publisher ? opt.pub_frames : opt.sub_frames)) settled++;
}

static const char *read_number(const char *p, const char *end, uint64_t *number) {
    const char *first = p;
    for (*number = 0; p < end && *p >= '0' && *p <= '9'; p++) *number = *number * 10 + (uint64_t)(*p - '0');
    return p > first ? p : NULL;
}

static void on_delivery(Connection *c, uint64_t message, uint64_t due, uint64_t arrived) {
    uint64_t topic = message % (uint64_t)opt.topics;
    if (!opt.everything && topic != (uint64_t)(c->number % opt.topics)) { stray++; return; }
    if (seen_before(&c->seen, opt.everything ? message : message / (uint64_t)opt.topics)) { twice++; return; }
    delivered++;
    record(&latency, arrived - origin - due);
}

static void on_ack(Connection *c, const char *text, size_t size, uint64_t arrived) {
    const char *at = memmem(text, size, opt.ack, strlen(opt.ack)), *end = text + size;
    uint64_t number;
    if (!at) return;
    for (at += strlen(opt.ack); at < end && (*at < '0' || *at > '9'); at++) {}
    if (!read_number(at, end, &number) || (int64_t)number != c->awaiting) { wrong_acks++; return; }
    record(&ack_latency, arrived - c->published_at);
    acked++;
    c->awaiting = -1;
    idle[idle_count++] = c;
    progress = arrived;
}

static void on_received(Connection *c, const char *text, size_t size, uint64_t arrived) {
    if (opt.ping && size == strlen(opt.ping) && !memcmp(text, opt.ping, size)) {
        send_frame(c, 1, opt.pong, strlen(opt.pong));
        return;
    }
    if (++c->frames == (c->publisher ? opt.pub_frames : opt.sub_frames)) settled++;
    if (c->publisher) {
        if (opt.ack && c->awaiting >= 0) on_ack(c, text, size, arrived);
        return;
    }
    const char *end = text + size;
    while ((text = memchr(text, '@', (size_t)(end - text)))) { /* a server may join messages in one frame */
        uint64_t message, due;
        text = read_number(text + 1, end, &message);
        if (text) text = read_number(text + 1, end, &due);
        if (!text || text == end) fail("connection %d got a message without its stamp", c->number);
        on_delivery(c, message, due, arrived);
        progress = arrived;
        text++;
    }
}

static void await(const long *count, long wanted, const char *what) {
    uint64_t until = now_ns() + (uint64_t)(4e9 * opt.stall_s);
    while (*count < wanted) {
        pump(50);
        if (now_ns() > until) fail("only %ld of %ld connections %s", *count, wanted, what);
    }
}

static Sample open_all(void) {
    Sample first = sample();
    int total = opt.subs + opt.pubs;
    for (int i = 0; i < total; i++) {
        if (i == SAMPLED_FROM && total >= 2 * SAMPLED_FROM) {
            await(&settled, i, "were answered");
            first = sample();
        }
        all[i] = (Connection){.number = i, .publisher = i >= opt.subs, .awaiting = -1};
        if (all[i].publisher) idle[idle_count++] = &all[i];
        dial(&all[i]);
        await(&opened, i + 1 - opt.dialing, "were opened");
    }
    await(&opened, total, "were opened");
    await(&settled, total, "were answered");
    return first;
}

static void publish(Connection *c, uint64_t due) {
    static char text[1 << 16];
    size_t size = expand(text, opt.publish, c->number, (int)(sent % opt.topics), sent, due);
    c->awaiting = sent++;
    c->published_at = due;
    send_frame(c, 1, text, size);
}

static int going(uint64_t until) {
    uint64_t now = now_ns();
    stalled = stalled || (double)(now - progress) > 1e9 * opt.stall_s;
    return now < until && !stalled;
}

static void closed_loop(uint64_t until, int window) {
    while (going(until)) {
        while (sent * per_message - delivered <= (window - 1) * per_message)
            publish(&all[opt.subs + sent % opt.pubs], now_ns());
        pump(200);
    }
}

static void acked_loop(uint64_t until) {
    while (going(until)) {
        while (idle_count) publish(idle[--idle_count], now_ns());
        pump(200);
    }
}

static void paced(uint64_t start, uint64_t until) {
    for (uint64_t i = 0;; i++) {
        uint64_t due = start + i * 1000000000ull / (uint64_t)opt.rate;
        if (due >= until || !going(until)) return;
        struct itimerspec wake = {.it_value = {(time_t)(due / 1000000000ull), (long)(due % 1000000000ull)}};
        timerfd_settime(timer, TFD_TIMER_ABSTIME, &wake, NULL);
        while (now_ns() < due) pump(100);
        record(&lateness, now_ns() - due);
        publish(&all[opt.subs + sent % opt.pubs], due);
    }
}

static void load(double seconds, int window) {
    uint64_t start = now_ns(), until = start + (uint64_t)(seconds * 1e9);
    progress = start;
    if (opt.ack) acked_loop(until);
    else if (opt.rate) paced(start, until);
    else closed_loop(until, window);
    while (going(UINT64_MAX) && (delivered < sent * per_message || (opt.ack && acked < sent))) pump(100);
}

static void print_latency(const char *name, const Histogram *h) {
    if (!h->count) return;
    printf("\"%sp50_ms\": %.3f, \"%sp90_ms\": %.3f, \"%sp99_ms\": %.3f, \"%sp999_ms\": %.3f, \"%smax_ms\": %.3f, ", name,
           percentile_ms(h, .5), name, percentile_ms(h, .9), name, percentile_ms(h, .99), name, percentile_ms(h, .999), name,
           (double)h->max / 1e6);
}

static double ratio(double a, double b) { return b > 0 ? a / b : 0; }

static void report(Sample dialled, Sample open, Sample from, Sample to, long rss_end) {
    int sampled = opt.subs + opt.pubs >= 2 * SAMPLED_FROM ? SAMPLED_FROM : 0, dials = opt.subs + opt.pubs - sampled;
    double wall = (double)(to.at - from.at) / 1e9, connecting = (double)(open.at - dialled.at) / 1e9, cpu = to.server - from.server;
    printf("{\"subs\": %d, \"pubs\": %d, \"size\": %d, \"window\": %d, \"topics\": %d, \"rate\": %d, ", opt.subs, opt.pubs, opt.size,
           opt.window, opt.topics, opt.rate);
    printf("\"connect_s\": %.4f, \"connects_per_s\": %.0f, \"connects_per_cpu_s\": %.0f, \"bytes_each\": %.0f, \"rss_open_mb\": %.1f, "
           "\"rss_end_mb\": %.1f, ", connecting, ratio(dials, connecting), ratio(dials, open.server - dialled.server),
           1024.0 * (double)(open.rss - dialled.rss) / dials, (double)open.rss / 1024, (double)rss_end / 1024);
    printf("\"messages\": %ld, \"delivered\": %ld, \"acks\": %ld, \"lost\": %ld, \"twice\": %ld, \"stray\": %ld, \"lost_acks\": %ld, "
           "\"wrong_acks\": %ld, ", to.sent - from.sent, to.delivered - from.delivered, to.acked - from.acked,
           sent * per_message - delivered, twice, stray, opt.ack ? sent - acked : 0, wrong_acks);
    print_latency("", &latency);
    print_latency("ack_", &ack_latency);
    print_latency("late_", &lateness);
    printf("\"wall_s\": %.4f, \"deliveries_per_s\": %.0f, \"deliveries_per_cpu_s\": %.0f, \"acks_per_cpu_s\": %.0f, ", wall,
           ratio((double)(to.delivered - from.delivered), wall), ratio((double)(to.delivered - from.delivered), cpu),
           ratio((double)(to.acked - from.acked), cpu));
    printf("\"server_cpu_s\": %.4f, \"broker_cpu_s\": %.4f, \"client_cpu_s\": %.4f, \"server_busy\": %.3f, \"client_busy\": %.3f}\n", cpu,
           to.broker - from.broker, to.own - from.own, ratio(cpu, wall), ratio(to.own - from.own, wall));
}

static void read_options(int argc, char **argv) {
    static const struct option names[] = {
        {"port", 1, 0, 'p'}, {"path", 1, 0, 'P'}, {"subs", 1, 0, 'n'}, {"pubs", 1, 0, 'N'}, {"size", 1, 0, 's'}, {"window", 1, 0, 'w'},
        {"topics", 1, 0, 'g'}, {"everything", 0, 0, 'e'}, {"dialing", 1, 0, 'd'}, {"rate", 1, 0, 'r'}, {"pid", 1, 0, 'i'},
        {"broker", 1, 0, 'b'}, {"seconds", 1, 0, 't'}, {"warm", 1, 0, 'W'}, {"sub", 1, 0, 'S'}, {"hello", 1, 0, 'H'},
        {"sub-frames", 1, 0, 'f'}, {"pub-frames", 1, 0, 'F'}, {"publish", 1, 0, 'T'}, {"ack", 1, 0, 'a'}, {"ping", 1, 0, '1'},
        {"pong", 1, 0, '2'}, {"stall", 1, 0, 'l'}, {0}};
    for (int c; (c = getopt_long(argc, argv, "", names, NULL)) != -1;) switch (c) {
        case 'p': wire.port = atoi(optarg); break;
        case 'P': wire.path = optarg; break;
        case 'n': opt.subs = atoi(optarg); break;
        case 'N': opt.pubs = atoi(optarg); break;
        case 's': opt.size = atoi(optarg); break;
        case 'w': opt.window = atoi(optarg); break;
        case 'g': opt.topics = atoi(optarg); break;
        case 'e': opt.everything = 1; break;
        case 'd': opt.dialing = atoi(optarg); break;
        case 'r': opt.rate = atoi(optarg); break;
        case 'i': opt.pid = atoi(optarg); break;
        case 'b': opt.broker = atoi(optarg); break;
        case 't': opt.seconds = atof(optarg); break;
        case 'W': opt.warm_s = atof(optarg); break;
        case 'S': if (opt.sub_count < 8) opt.sub[opt.sub_count++] = optarg; break;
        case 'H': if (opt.hello_count < 8) opt.hello[opt.hello_count++] = optarg; break;
        case 'f': opt.sub_frames = atol(optarg); break;
        case 'F': opt.pub_frames = atol(optarg); break;
        case 'T': opt.publish = optarg; break;
        case 'a': opt.ack = optarg; break;
        case '1': opt.ping = optarg; break;
        case '2': opt.pong = optarg; break;
        case 'l': opt.stall_s = atof(optarg); break;
        default: exit(2);
    }
    if (opt.subs < 0 || opt.pubs < 0 || opt.topics < 1 || (!opt.everything && opt.subs % opt.topics)) fail("--topics must divide --subs");
    if (opt.size < 0 || opt.size > 60000 || opt.window < 1) fail("--size goes to 60000, --window begins at 1");
    if (opt.seconds > 0 && (!opt.publish || opt.pubs < 1)) fail("--publish and --pubs are needed");
    if ((opt.ping == NULL) != (opt.pong == NULL)) fail("--ping and --pong go together");
}

static void prepare(void) {
    struct rlimit files;
    getrlimit(RLIMIT_NOFILE, &files);
    files.rlim_cur = files.rlim_max;
    setrlimit(RLIMIT_NOFILE, &files);
    wire.epoll = epoll_create1(0);
    wire.opened = on_opened;
    wire.received = on_received;
    timer = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK);
    struct epoll_event wakes = {.events = EPOLLIN | EPOLLET, .data.ptr = NULL};
    epoll_ctl(wire.epoll, EPOLL_CTL_ADD, timer, &wakes);
    size_t total = (size_t)(opt.subs + opt.pubs);
    all = calloc(total, sizeof *all);
    idle = calloc(total, sizeof *idle);
    if (!all || !idle) fail("no memory");
    per_message = opt.everything ? opt.subs : opt.subs / opt.topics;
    origin = now_ns();
}

int main(int argc, char **argv) {
    wire.path = "/ws";
    read_options(argc, argv);
    prepare();
    Sample dialled = open_all(), open = sample(), from, to;
    if (opt.warm_s > 0 && opt.publish) load(opt.warm_s, 1);
    memset(&latency, 0, sizeof latency), memset(&ack_latency, 0, sizeof latency), memset(&lateness, 0, sizeof latency);
    from = opt.seconds > 0 ? sample() : dialled; /* only connecting: the figures are those of connecting */
    if (opt.seconds > 0) load(opt.seconds, opt.window);
    to = opt.seconds > 0 ? sample() : open;
    for (uint64_t until = now_ns() + 100000000ull; now_ns() < until;) pump(20); /* what comes twice comes late */
    report(dialled, open, from, to, rss_kb(opt.pid));
    return stalled ? 3 : 0;
}
