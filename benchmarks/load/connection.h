/* Client connections on one epoll: opening handshake and frames (RFC 6455), read and written without blocking. */
#pragma once
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "process.h"
#include "stats.h"

/* The sample of RFC 6455 section 1.3: with one key for all, a floor server can answer with a constant. */
#define KEY "dGhlIHNhbXBsZSBub25jZQ=="
#define ACCEPT "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="

typedef struct {
    int fd, number, publisher, open;
    long frames;             /* text frames since the handshake, the application's pings not counted */
    char *rest;              /* the beginning of a frame whose end has not come yet */
    size_t kept;
    Seen seen;               /* messages that a subscriber has got */
    int64_t awaiting;        /* number of the publish whose ack a publisher waits for; -1: none */
    uint64_t published_at;
} Connection;

typedef void Opened(Connection *);
typedef void Received(Connection *, const char *text, size_t size, uint64_t arrived);

static struct {
    int epoll, port;
    const char *path;
    Opened *opened;
    Received *received;
} wire;

static void send_all(Connection *c, const char *bytes, size_t size) {
    while (size) {
        ssize_t done = send(c->fd, bytes, size, MSG_NOSIGNAL);
        if (done < 0 && errno == EAGAIN) {
            struct pollfd writable = {.fd = c->fd, .events = POLLOUT};
            if (poll(&writable, 1, 20000) == 0) fail("the server reads nothing from connection %d", c->number);
            continue;
        }
        if (done < 0) fail("connection %d cannot be written: %s", c->number, strerror(errno));
        bytes += done;
        size -= (size_t)done;
    }
}

/* Clients must mask (section 5.3); with key 0 the bytes stay as they are, and the server has the same work. */
static void send_frame(Connection *c, int opcode, const char *text, size_t size) {
    static char frame[1 << 17];
    size_t head = size < 126 ? 2 : 4;
    if (size > 65535) fail("a message of %zu bytes is too long", size);
    frame[0] = (char)(0x80 | opcode);
    frame[1] = (char)(0x80 | (size < 126 ? size : 126));
    if (head == 4) frame[2] = (char)(size >> 8), frame[3] = (char)size;
    memset(frame + head, 0, 4);
    memcpy(frame + head + 4, text, size);
    send_all(c, frame, head + 4 + size);
}

static void got_frame(Connection *c, int first, const char *data, size_t size, uint64_t arrived) {
    const unsigned char *code = (const unsigned char *)data;
    switch (first & 15) {
        case 1: case 2:
            if (!(first & 0x80)) fail("connection %d got a fragment, which this client cannot read", c->number);
            wire.received(c, data, size, arrived);
            break;
        case 8: fail("connection %d closed by the server with code %d after %ld frames", c->number,
                     size > 1 ? code[0] << 8 | code[1] : 1005, c->frames); break;
        case 9: send_frame(c, 10, data, size); break;
        case 10: break;
        default: fail("connection %d got opcode %d", c->number, first & 15);
    }
}

/* Take all whole frames; return the bytes taken. */
static size_t take_frames(Connection *c, const char *buffer, size_t have, uint64_t arrived) {
    size_t at = 0;
    while (have - at >= 2) {
        const unsigned char *head = (const unsigned char *)buffer + at;
        size_t size = head[1] & 127, length = size == 126 ? 4 : size == 127 ? 10 : 2;
        if (have - at < length) break;
        if (length > 2) {
            size = 0;
            for (size_t i = 2; i < length; i++) size = size << 8 | head[i];
        }
        if (have - at < length + size) break;
        got_frame(c, head[0], buffer + at + length, size, arrived);
        at += length + size;
    }
    return at;
}

/* Take the answer to the handshake; return the bytes taken, 0: it is not complete. */
static size_t take_handshake(Connection *c, const char *buffer, size_t have) {
    const char *end = memmem(buffer, have, "\r\n\r\n", 4);
    if (!end) return 0;
    size_t size = (size_t)(end - buffer) + 4;
    if (size < 12 || memcmp(buffer, "HTTP/1.1 101", 12)) fail("handshake refused: %.*s", (int)size, buffer);
    if (!memmem(buffer, size, ACCEPT, strlen(ACCEPT))) fail("Sec-WebSocket-Accept is wrong");
    c->open = 1;
    wire.opened(c);
    return size;
}

static void keep(Connection *c, const char *bytes, size_t size) {
    if (size && !(c->rest = realloc(c->rest, size))) fail("no memory");
    if (size) memcpy(c->rest, bytes, size);
    c->kept = size;
}

/* All connections share one buffer, which stays in the cache; only unfinished frames are kept for each. */
static void feed(Connection *c) {
    static char buffer[1 << 18];
    size_t have = c->kept, taken = 0;
    if (have) memcpy(buffer, c->rest, have);
    ssize_t got = recv(c->fd, buffer + have, sizeof buffer - have, 0);
    if (got < 0 && errno == EAGAIN) return;
    if (got <= 0) fail("connection %d ended without a close frame", c->number);
    uint64_t arrived = now_ns();
    have += (size_t)got;
    if (!c->open && !(taken = take_handshake(c, buffer, have))) {
        keep(c, buffer, have);
        return;
    }
    taken += take_frames(c, buffer + taken, have - taken, arrived);
    if (have - taken == sizeof buffer) fail("connection %d got a frame that is too long", c->number);
    keep(c, buffer + taken, have - taken);
}

/* Read what is there, waiting at most some milliseconds. */
static void pump(int wait_ms) {
    struct epoll_event events[512];
    int count = epoll_wait(wire.epoll, events, 512, wait_ms);
    for (int i = 0; i < count; i++)
        if (events[i].data.ptr) feed(events[i].data.ptr);
}

static void dial(Connection *c) {
    struct sockaddr_in server = {.sin_family = AF_INET, .sin_port = htons((uint16_t)wire.port)}, own = {.sin_family = AF_INET};
    char request[1024];
    int one = 1;
    server.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    own.sin_addr.s_addr = htonl(INADDR_LOOPBACK + (uint32_t)(c->number / 20000));  /* one address has too few ports */
    c->fd = socket(AF_INET, SOCK_STREAM, 0);
    setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    setsockopt(c->fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &one, sizeof one);
    if (c->fd < 0 || bind(c->fd, (void *)&own, sizeof own) || connect(c->fd, (void *)&server, sizeof server))
        fail("connection %d cannot be opened: %s", c->number, strerror(errno));
    fcntl(c->fd, F_SETFL, O_NONBLOCK);
    struct epoll_event readable = {.events = EPOLLIN, .data.ptr = c};
    epoll_ctl(wire.epoll, EPOLL_CTL_ADD, c->fd, &readable);
    int size = snprintf(request, sizeof request,
                        "GET %s HTTP/1.1\r\nHost: 127.0.0.1:%d\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                        "Sec-WebSocket-Key: " KEY "\r\nSec-WebSocket-Version: 13\r\n\r\n", wire.path, wire.port);
    send_all(c, request, (size_t)size);
}
