/* A Gearman server that costs as little as possible: each job is accepted, and each foreground job completed with its own
 * payload, at once. One thread, one epoll. It prints its port and ends when its standard input does.
 *
 * Usage: instant_server LAG
 *   LAG 0: jobs complete at once;  LAG n: a job completes when the n-th job after it on its connection has come, so that
 *   n are always in flight;  LAG -1: jobs are accepted and never complete.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

enum {
    SUBMIT_JOB = 7, JOB_CREATED = 8, WORK_COMPLETE = 13, GET_STATUS = 15, ECHO_REQ = 16, ECHO_RES = 17, SUBMIT_JOB_BG = 18,
    ERROR_RES = 19, STATUS_RES = 20, SUBMIT_JOB_HIGH = 21, OPTION_REQ = 26, OPTION_RES = 27, SUBMIT_JOB_HIGH_BG = 32,
    SUBMIT_JOB_LOW = 33, SUBMIT_JOB_LOW_BG = 34, SUBMIT_JOB_EPOCH = 36, GET_STATUS_UNIQUE = 41, STATUS_RES_UNIQUE = 42
};

enum { HEADER = 12, READ_SIZE = 256 * 1024 };

struct buffer { char *data; size_t start, end, size; };
struct held { char handle[24]; size_t handle_size; char *payload; size_t payload_size; };
struct connection { int fd; int wants_write; struct buffer in, out; struct held *ring; size_t held_count, held_next; };

static long lag;
static unsigned long job_number, echoes;
static int poller;

static char *reserve(struct buffer *buffer, size_t more)
{
    if (buffer->start && (buffer->start == buffer->end || buffer->end + more > buffer->size)) {
        memmove(buffer->data, buffer->data + buffer->start, buffer->end - buffer->start);
        buffer->end -= buffer->start;
        buffer->start = 0;
    }
    if (buffer->end + more > buffer->size) {
        buffer->size = (buffer->end + more) * 3 / 2;
        if (!(buffer->data = realloc(buffer->data, buffer->size)))
            abort();
    }
    return buffer->data + buffer->end;
}

static void append(struct buffer *buffer, const void *data, size_t size)
{
    memcpy(reserve(buffer, size), data, size);
    buffer->end += size;
}

static void header(struct buffer *buffer, uint32_t command, size_t size)
{
    uint32_t words[3] = {htonl(0x00524553), htonl(command), htonl((uint32_t)size)};
    append(buffer, words, sizeof words);
}

static void reply(struct buffer *buffer, uint32_t command, const void *data, size_t size)
{
    header(buffer, command, size);
    append(buffer, data, size);
}

static void complete(struct buffer *out, const char *handle, size_t handle_size, const char *payload, size_t size)
{
    header(out, WORK_COMPLETE, handle_size + 1 + size);
    append(out, handle, handle_size + 1);
    append(out, payload, size);
}

/* The place behind the n-th NUL, or NULL. */
static const char *argument(const char *body, size_t size, int n)
{
    const char *end = body + size;
    while (n--) {
        const char *nul = memchr(body, 0, (size_t)(end - body));
        if (!nul)
            return NULL;
        body = nul + 1;
    }
    return body;
}

static int submit(struct connection *c, uint32_t command, const char *body, size_t size)
{
    char handle[24];
    const char *payload = argument(body, size, command == SUBMIT_JOB_EPOCH ? 3 : 2);
    if (!payload)
        return -1;
    size_t payload_size = size - (size_t)(payload - body);
    size_t handle_size = (size_t)snprintf(handle, sizeof handle, "H:bench:%lu", ++job_number);
    reply(&c->out, JOB_CREATED, handle, handle_size);
    if (lag < 0 || (command != SUBMIT_JOB && command != SUBMIT_JOB_HIGH && command != SUBMIT_JOB_LOW))
        return 0;
    if (lag == 0) {
        complete(&c->out, handle, handle_size, payload, payload_size);
        return 0;
    }
    if (!c->ring && !(c->ring = calloc((size_t)lag, sizeof *c->ring)))
        abort();
    struct held *slot = &c->ring[c->held_next];
    c->held_next = (c->held_next + 1) % (size_t)lag;
    if (c->held_count == (size_t)lag) {
        complete(&c->out, slot->handle, slot->handle_size, slot->payload, slot->payload_size);
        free(slot->payload);
    } else {
        c->held_count++;
    }
    memcpy(slot->handle, handle, sizeof handle);
    slot->handle_size = handle_size;
    slot->payload_size = payload_size;
    if (!(slot->payload = malloc(payload_size + 1)))
        abort();
    memcpy(slot->payload, payload, payload_size);
    return 0;
}

static int handle_packet(struct connection *c, uint32_t command, const char *body, size_t size)
{
    static const char unknown[] = "INVALID_COMMAND\0Command not expected";
    switch (command) {
    case SUBMIT_JOB: case SUBMIT_JOB_HIGH: case SUBMIT_JOB_LOW:
    case SUBMIT_JOB_BG: case SUBMIT_JOB_HIGH_BG: case SUBMIT_JOB_LOW_BG: case SUBMIT_JOB_EPOCH:
        return submit(c, command, body, size);
    case ECHO_REQ:
        echoes++;
        reply(&c->out, ECHO_RES, body, size);
        return 0;
    case OPTION_REQ:
        reply(&c->out, OPTION_RES, body, size);
        return 0;
    case GET_STATUS:
        header(&c->out, STATUS_RES, size + 8);
        append(&c->out, body, size);
        append(&c->out, "\0001\0001\0000\0000", 8);
        return 0;
    case GET_STATUS_UNIQUE:
        header(&c->out, STATUS_RES_UNIQUE, size + 10);
        append(&c->out, body, size);
        append(&c->out, "\0001\0001\0000\0000\0001", 10);
        return 0;
    default:
        reply(&c->out, ERROR_RES, unknown, sizeof unknown - 1);
        return 0;
    }
}

static void handle_line(struct connection *c, const char *line, size_t size)
{
    char answer[64] = "ERR UNKNOWN_COMMAND Unknown+server+command\r\n";
    if (size && line[size - 1] == '\r')
        size--;
    if (size == 7 && !memcmp(line, "version", 7))
        strcpy(answer, "OK 1.1.20\n");
    else if (size == 6 && !memcmp(line, "status", 6))
        strcpy(answer, ".\n");
    else if (size == 6 && !memcmp(line, "echoes", 6)) /* how many ECHO_REQ have come: not a command of gearmand's */
        snprintf(answer, sizeof answer, "OK %lu\n", echoes);
    append(&c->out, answer, strlen(answer));
}

/* Handles what is there whole; returns how many more bytes the next packet needs, or -1 if it is no packet. */
static long handle_input(struct connection *c)
{
    struct buffer *in = &c->in;
    while (in->start < in->end) {
        const char *data = in->data + in->start;
        size_t there = in->end - in->start;
        if (data[0]) {
            const char *newline = memchr(data, '\n', there);
            if (!newline)
                return there > 8192 ? -1 : 1;
            handle_line(c, data, (size_t)(newline - data));
            in->start += (size_t)(newline - data) + 1;
            continue;
        }
        if (there < HEADER)
            return (long)(HEADER - there);
        uint32_t words[3];
        memcpy(words, data, HEADER);
        size_t size = ntohl(words[2]);
        if (words[0] != htonl(0x00524551))
            return -1;
        if (there < HEADER + size)
            return (long)(HEADER + size - there);
        if (handle_packet(c, ntohl(words[1]), data + HEADER, size) < 0)
            return -1;
        in->start += HEADER + size;
    }
    return 1;
}

static int flush(struct connection *c)
{
    struct buffer *out = &c->out;
    while (out->start < out->end) {
        ssize_t sent = send(c->fd, out->data + out->start, out->end - out->start, MSG_NOSIGNAL);
        if (sent < 0 && errno == EINTR)
            continue;
        if (sent < 0 && (errno == EAGAIN || errno == EWOULDBLOCK))
            break;
        if (sent < 0)
            return -1;
        out->start += (size_t)sent;
    }
    int pending = out->start < out->end;
    if (!pending)
        out->start = out->end = 0;
    if (pending != c->wants_write) {
        struct epoll_event event = {.events = EPOLLIN | (pending ? EPOLLOUT : 0u), .data.ptr = c};
        c->wants_write = pending;
        return epoll_ctl(poller, EPOLL_CTL_MOD, c->fd, &event);
    }
    return 0;
}

static int receive(struct connection *c)
{
    long needed = handle_input(c);
    for (;;) {
        if (needed < 0)
            return -1;
        size_t room = (size_t)needed > READ_SIZE ? (size_t)needed : READ_SIZE;
        char *place = reserve(&c->in, room);
        ssize_t got = recv(c->fd, place, room, 0);
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0 && (errno == EAGAIN || errno == EWOULDBLOCK))
            return 0;
        if (got <= 0)
            return -1;
        c->in.end += (size_t)got;
        needed = handle_input(c);
        if ((size_t)got < room) /* all that was there: answer before asking for more */
            return needed < 0 ? -1 : 0;
    }
}

static void drop(struct connection *c)
{
    close(c->fd);
    for (size_t i = 0; i < c->held_count; i++)
        free(c->ring[i].payload);
    free(c->ring);
    free(c->in.data);
    free(c->out.data);
    free(c);
}

static void take(int listener)
{
    int on = 1, fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
    if (fd < 0)
        return;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    struct connection *c = calloc(1, sizeof *c);
    if (!c)
        abort();
    c->fd = fd;
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = c};
    if (epoll_ctl(poller, EPOLL_CTL_ADD, fd, &event) < 0)
        drop(c);
}

int main(int argc, char **argv)
{
    int listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t length = sizeof address;
    static char input_mark, listener_mark;
    struct epoll_event input = {.events = EPOLLIN, .data.ptr = &input_mark};
    struct epoll_event newcomer = {.events = EPOLLIN, .data.ptr = &listener_mark};
    lag = argc > 1 ? atol(argv[1]) : 0;
    poller = epoll_create1(EPOLL_CLOEXEC);
    if (listener < 0 || poller < 0 || bind(listener, (struct sockaddr *)&address, sizeof address) < 0
        || listen(listener, 512) < 0 || getsockname(listener, (struct sockaddr *)&address, &length) < 0
        || epoll_ctl(poller, EPOLL_CTL_ADD, listener, &newcomer) < 0
        || epoll_ctl(poller, EPOLL_CTL_ADD, STDIN_FILENO, &input) < 0) {
        perror("instant_server");
        return 1;
    }
    printf("%d\n", ntohs(address.sin_port));
    fflush(stdout);
    for (;;) {
        struct epoll_event events[64];
        int count = epoll_wait(poller, events, 64, -1);
        for (int i = 0; i < count; i++) {
            void *mark = events[i].data.ptr;
            if (mark == &input_mark) {
                char byte;
                if (read(STDIN_FILENO, &byte, 1) <= 0)
                    return 0;
            } else if (mark == &listener_mark) {
                take(listener);
            } else {
                struct connection *c = mark;
                int failed = 0;
                if (events[i].events & (EPOLLIN | EPOLLHUP | EPOLLERR))
                    failed = receive(c) < 0;
                if (flush(c) < 0 || failed)
                    drop(c);
            }
        }
    }
}
