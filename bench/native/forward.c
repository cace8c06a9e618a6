/* Passes datagrams on and does nothing else: what any program in this place costs at least.
 *
 *     forward --inner FD --outer FD --channel N
 *
 * INNER is bound: what comes there leaves by OUTER, which is connected, and what comes back goes to
 * whoever sent last. With a channel (not 0) OUTER leads to a TURN relay: datagrams get a
 * ChannelData header (RFC 8656, section 12.4) on the way out and lose it on the way in. It ends
 * when its standard input does. */

#define _GNU_SOURCE
#include <arpa/inet.h>
#include <netinet/in.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

enum { BATCH = 64, ROOM = 2048, HEADER = 4 };

static uint8_t buffers[BATCH][HEADER + ROOM];
static struct iovec parts[BATCH];
static struct mmsghdr messages[BATCH];
static struct sockaddr_in sources[BATCH], last;

static void receive_into(int with_sources) {
    for (int i = 0; i < BATCH; i++) {
        parts[i] = (struct iovec){buffers[i] + HEADER, ROOM};
        messages[i].msg_hdr = (struct msghdr){.msg_iov = &parts[i], .msg_iovlen = 1};
        if (with_sources) {
            messages[i].msg_hdr.msg_name = &sources[i];
            messages[i].msg_hdr.msg_namelen = sizeof sources[i];
        }
    }
}

static void send_all(int to, int count) {
    for (int sent = 0; sent < count;) {
        int took = sendmmsg(to, messages + sent, count - sent, 0);
        sent += took > 0 ? took : 1; /* what the system does not take is lost */
    }
}

static void outward(int inner, int outer, unsigned channel) {
    receive_into(1);
    int count = recvmmsg(inner, messages, BATCH, MSG_DONTWAIT, NULL);
    for (int i = 0; i < count; i++) {
        uint16_t size = messages[i].msg_len, header[2] = {htons(channel), htons(size)};
        parts[i].iov_len = size;
        if (channel) {
            memcpy(buffers[i], header, HEADER);
            parts[i] = (struct iovec){buffers[i], HEADER + size};
        }
        last = sources[i];
        messages[i].msg_hdr.msg_name = NULL;
        messages[i].msg_hdr.msg_namelen = 0;
    }
    if (count > 0) send_all(outer, count);
}

static void inward(int inner, int outer, unsigned channel) {
    receive_into(0);
    int count = recvmmsg(outer, messages, BATCH, MSG_DONTWAIT, NULL);
    int skip = channel ? HEADER : 0;
    for (int i = 0; i < count; i++) {
        unsigned size = messages[i].msg_len;
        parts[i].iov_base = buffers[i] + HEADER + skip;
        parts[i].iov_len = size > (unsigned)skip ? size - skip : 0;
        messages[i].msg_hdr.msg_name = &last;
        messages[i].msg_hdr.msg_namelen = sizeof last;
    }
    if (count > 0) send_all(inner, count);
}

static int option(int count, char **words, const char *name) {
    for (int i = 1; i + 1 < count; i++)
        if (!strcmp(words[i], name)) return atoi(words[i + 1]);
    fprintf(stderr, "missing %s\n", name);
    exit(2);
}

int main(int count, char **words) {
    int inner = option(count, words, "--inner"), outer = option(count, words, "--outer");
    unsigned channel = option(count, words, "--channel");
    int watched[] = {inner, outer, STDIN_FILENO}, poll = epoll_create1(EPOLL_CLOEXEC);
    for (int i = 0; i < 3; i++) {
        struct epoll_event event = {.events = EPOLLIN, .data.fd = watched[i]};
        if (epoll_ctl(poll, EPOLL_CTL_ADD, watched[i], &event)) return perror("epoll_ctl"), 1;
    }
    for (;;) {
        struct epoll_event ready[3];
        int found = epoll_wait(poll, ready, 3, -1);
        for (int i = 0; i < found; i++) {
            if (ready[i].data.fd == STDIN_FILENO) return 0;
            if (ready[i].data.fd == inner) outward(inner, outer, channel);
            if (ready[i].data.fd == outer) inward(inner, outer, channel);
        }
    }
}
