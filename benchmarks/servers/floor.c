/* The floor: the least a server can do to fan out over separate sockets. One thread, epoll, one send(2) of a ready frame
 * for each subscriber. It speaks just enough of the benchmarks' messages, and trusts its client: it is not a server to use.
 *
 * Prints its port. Build: cc -O2 -o floor floor.c (Linux)
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

/* The load client always sends the sample key of RFC 6455 section 1.3, so its answer is a constant. */
#define ANSWER "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n" \
               "Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n"
enum { BUFFER = 1 << 17, TOPICS = 256 };

typedef struct { int fd, open; size_t kept; char *rest; } Client;
typedef struct { char name[64]; int *fds, count; } Topic;
static Topic topics[TOPICS];

static Topic *topic_of(const char *name, size_t size) {
    for (Topic *t = topics; t < topics + TOPICS && size < sizeof t->name; t++) {
        if (!t->name[0]) memcpy(t->name, name, size);
        if (!strncmp(t->name, name, size) && !t->name[size]) return t;
    }
    fprintf(stderr, "floor: too many topics, or too long a name\n");
    exit(1);
}

/* Sockets block: a full one waits for its reader, so nothing is dropped and nothing is queued here. */
static void send_text(int fd, const char *frame, size_t size) {
    while (size) {
        ssize_t done = send(fd, frame, size, MSG_NOSIGNAL);
        if (done < 0) return; /* the client is gone; its end is read by epoll */
        frame += done, size -= (size_t)done;
    }
}

static size_t make_frame(char *frame, const char *text, size_t size) {
    size_t head = size < 126 ? 2 : 4;
    frame[0] = (char)0x81;
    frame[1] = (char)(size < 126 ? size : 126);
    if (head == 4) frame[2] = (char)(size >> 8), frame[3] = (char)size;
    memcpy(frame + head, text, size);
    return head + size;
}

static void acknowledge(int fd, const char *text, size_t size) {
    const char *id = memmem(text, size, "\"id\":", 5);
    char ack[64], frame[80];
    if (!id) return;
    size_t length = (size_t)snprintf(ack, sizeof ack, "{\"type\":\"ack\",\"id\":%ld}", atol(id + 5));
    send_text(fd, frame, make_frame(frame, ack, length));
}

static void got_message(int fd, const char *text, size_t size) {
    static char frame[BUFFER];
    const char *name = memmem(text, size, "\"topic\":\"", 9), *end = name ? memchr(name + 9, '"', (size_t)(text + size - name - 9)) : NULL;
    if (!end) return;
    Topic *topic = topic_of(name + 9, (size_t)(end - name - 9));
    if (memmem(text, size, "\"type\":\"subscribe\"", 18)) {
        topic->fds = realloc(topic->fds, (size_t)(topic->count + 1) * sizeof(int));
        topic->fds[topic->count++] = fd;
    } else {
        size_t length = make_frame(frame, text, size);
        for (int i = 0; i < topic->count; i++) send_text(topic->fds[i], frame, length);
    }
    acknowledge(fd, text, size);
}

static size_t take_frames(int fd, char *buffer, size_t have) {
    size_t at = 0;
    while (have - at >= 2) {
        unsigned char *head = (unsigned char *)buffer + at;
        size_t size = head[1] & 127, length = size == 126 ? 8 : 6;
        if (have - at < length) break;
        if (length == 8) size = (size_t)(head[2] << 8 | head[3]);
        if (have - at < length + size) break;
        char *mask = buffer + at + length - 4, *text = buffer + at + length;
        for (size_t i = 0; i < size; i++) text[i] ^= mask[i & 3];
        if ((head[0] & 15) == 1) got_message(fd, text, size);
        at += length + size;
    }
    return at;
}

static int read_client(Client *c) {
    static char buffer[BUFFER];
    if (c->kept) memcpy(buffer, c->rest, c->kept);
    ssize_t got = recv(c->fd, buffer + c->kept, sizeof buffer - c->kept, MSG_DONTWAIT);
    if (got < 0 && errno == EAGAIN) return 1;
    if (got <= 0) return 0;
    size_t have = c->kept + (size_t)got, taken = 0;
    if (!c->open) {
        char *end = memmem(buffer, have, "\r\n\r\n", 4);
        if (end) {
            taken = (size_t)(end - buffer) + 4;
            c->open = 1;
            send_text(c->fd, ANSWER, strlen(ANSWER));
        }
    }
    if (c->open) taken += take_frames(c->fd, buffer + taken, have - taken);
    c->kept = have - taken;
    if (c->kept) c->rest = realloc(c->rest, c->kept), memcpy(c->rest, buffer + taken, c->kept);
    return 1;
}

static int listening(int port) {
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
    socklen_t size = sizeof address;
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    if (bind(fd, (void *)&address, sizeof address) || listen(fd, 4096)) perror("floor"), exit(1);
    getsockname(fd, (void *)&address, &size);
    printf("%d\n", ntohs(address.sin_port));
    fflush(stdout);
    return fd;
}

int main(void) {
    struct rlimit files;
    getrlimit(RLIMIT_NOFILE, &files);
    files.rlim_cur = files.rlim_max;
    setrlimit(RLIMIT_NOFILE, &files);
    int listener = listening(0), epoll = epoll_create1(0), one = 1;
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = NULL}, events[512];
    epoll_ctl(epoll, EPOLL_CTL_ADD, listener, &event);
    for (;;) {
        int count = epoll_wait(epoll, events, 512, -1);
        for (int i = 0; i < count; i++) {
            Client *c = events[i].data.ptr;
            if (c && read_client(c)) continue;
            if (c) { epoll_ctl(epoll, EPOLL_CTL_DEL, c->fd, NULL); continue; } /* the run is over: nobody reuses the number */
            c = calloc(1, sizeof *c);
            c->fd = accept(listener, NULL, NULL);
            setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
            event.data.ptr = c;
            epoll_ctl(epoll, EPOLL_CTL_ADD, c->fd, &event);
        }
    }
}
