/* Generator and sink: the same program as turnlane_lab.bench.peer, which says what it does and
 * which commands it takes, for where a C compiler is. The two speak to each other.
 *
 *     peer [--near FD,FD,…] [--far FD] [--acks FD] [--channel N] */

#define _GNU_SOURCE
#include <arpa/inet.h>
#include <endian.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/udp.h>
#include <poll.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum {
    MAGIC = 0x7B42, HELLO = 0, DATA = 1, PING = 2, PONG = 3,
    HEADER = 12, FRAME = 4, ACK = 12,
    MAX_FLOWS = 256, MAX_BURST = 64, MAX_SIZES = 64, MAX_PINGS = 1000000, LARGEST = 65536,
    GSO_LIMIT = 65000,
};
static const int64_t STALL = 20000000, PATIENCE = 500000000, MAX_BEHIND = 20000000;

static int near_fds[MAX_FLOWS], nears, far_fd = -1, acks_fd = -1, gso = 1;
static unsigned channel;
static struct sockaddr_in flows[MAX_FLOWS];
static int flow_count;

/* What is counted. */
static uint32_t expected = UINT32_MAX;
static uint64_t received, received_bytes;
static int acknowledges;

/* What is being done. */
static enum { IDLE, SENDING, PINGING } job = IDLE;
static uint32_t job_run;
static int64_t began, ends_at, next_at, progress_at, interval;
static uint64_t sent, acknowledged, given_up, shots;
static int burst, window, sizes[MAX_SIZES], size_count;
static int ping_count, ping_size, ping_number, ping_waits, ping_lost, ping_taken;
static int64_t ping_sent_at, *pings;

static uint8_t outgoing[MAX_BURST * 2048], incoming[LARGEST];

static int64_t now_ns(void) {
    struct timespec at;
    clock_gettime(CLOCK_MONOTONIC, &at);
    return at.tv_sec * 1000000000LL + at.tv_nsec;
}

/* Write one datagram, framed where there is a channel; return how long it is. */
static int put(uint8_t *to, int kind, uint32_t run, uint32_t number, int size, unsigned framing) {
    uint8_t *start = to;
    if (framing) {
        uint16_t frame[2] = {htons(framing), htons(size)};
        memcpy(to, frame, FRAME);
        to += FRAME;
    }
    uint16_t magic = htons(MAGIC);
    run = htonl(run), number = htonl(number);
    memcpy(to, &magic, 2);
    to[2] = kind, to[3] = 0;
    memcpy(to + 4, &run, 4);
    memcpy(to + 8, &number, 4);
    return to - start + size;
}

/* Send `count` datagrams of `size` bytes that stand one after the other; return how many left. */
static int send_run(int to, struct sockaddr_in *address, uint8_t *data, int size, int count) {
    if (gso && count > 1) {
        union { char room[CMSG_SPACE(2)]; struct cmsghdr align; } control = {0};
        struct iovec part = {data, (size_t)size * count};
        struct msghdr message = {address, address ? sizeof *address : 0, &part, 1,
                                 control.room, sizeof control.room, 0};
        struct cmsghdr *told = CMSG_FIRSTHDR(&message);
        told->cmsg_level = IPPROTO_UDP, told->cmsg_type = UDP_SEGMENT, told->cmsg_len = CMSG_LEN(2);
        uint16_t segment = size;
        memcpy(CMSG_DATA(told), &segment, 2);
        if (sendmsg(to, &message, 0) >= 0) return count;
        if (errno == EIO || errno == EINVAL || errno == ENOPROTOOPT) gso = 0;
    }
    struct mmsghdr messages[MAX_BURST] = {0};
    struct iovec parts[MAX_BURST];
    for (int i = 0; i < count; i++) {
        parts[i] = (struct iovec){data + (size_t)size * i, size};
        messages[i].msg_hdr = (struct msghdr){address, address ? sizeof *address : 0, &parts[i], 1};
    }
    int taken = sendmmsg(to, messages, count, 0);
    return taken < 0 ? 0 : taken;
}

/* Send different sizes by one system call, since no run of equal ones would be worth one. */
static int send_mixed(int to, struct sockaddr_in *address, uint8_t *data, int *lengths, int count) {
    struct mmsghdr messages[MAX_BURST] = {0};
    struct iovec parts[MAX_BURST];
    for (int i = 0; i < count; data += lengths[i++]) {
        parts[i] = (struct iovec){data, lengths[i]};
        messages[i].msg_hdr = (struct msghdr){address, address ? sizeof *address : 0, &parts[i], 1};
    }
    int taken = sendmmsg(to, messages, count, 0);
    return taken < 0 ? 0 : taken;
}

static int pick(uint64_t number, int *to, struct sockaddr_in **address) {
    if (nears) return *to = near_fds[number % nears], *address = NULL, 1;
    if (!flow_count) return 0;
    return *to = far_fd, *address = &flows[number % flow_count], 1;
}

static void shoot(void) {
    struct sockaddr_in *address;
    int to, lengths[MAX_BURST] = {0}, end = 0;
    if (pick(shots, &to, &address)) {
        for (int i = 0; i < burst; i++) {
            int size = sizes[(shots * burst + i) % size_count];
            lengths[i] = put(outgoing + end, DATA, job_run, 0, size, channel);
            end += lengths[i];
        }
        sent += size_count == 1 && burst * lengths[0] <= GSO_LIMIT
                    ? send_run(to, address, outgoing, lengths[0], burst)
                    : send_mixed(to, address, outgoing, lengths, burst);
    }
    shots++;
}

static int is_open(void) {
    int64_t under_way = sent - acknowledged - given_up;
    return !window || under_way + burst <= window;
}

static int64_t send_due(int64_t now) {
    int64_t due = interval ? next_at : now;
    if (!is_open()) due = progress_at + STALL;
    return due < ends_at ? due : ends_at;
}

static void send_work(int64_t now) {
    if (now >= ends_at) {
        printf("{\"sent\": %llu, \"seconds\": %.6f}\n", (unsigned long long)sent,
               (now - began) / 1e9);
        job = IDLE;
        return;
    }
    if (!is_open() && now >= progress_at + STALL) given_up = sent - acknowledged, progress_at = now;
    if (interval && now - next_at > MAX_BEHIND) next_at = now;
    for (int i = 0; i < 16 && is_open() && (!interval || next_at <= now); i++) {
        shoot();
        next_at += interval;
    }
}

static void ping_work(int64_t now) {
    if (ping_waits) {
        if (now < ping_sent_at + PATIENCE) return;
        ping_lost++;
    }
    if (ping_number == ping_count || now >= ends_at) {
        printf("{\"lost\": %d, \"ns\": [", ping_lost);
        for (int i = 0; i < ping_taken; i++) printf(i ? ",%lld" : "%lld", (long long)pings[i]);
        printf("]}\n");
        free(pings);
        job = IDLE;
        return;
    }
    struct sockaddr_in *address;
    int to, size = put(outgoing, PING, job_run, ++ping_number, ping_size, channel);
    ping_waits = 1;
    ping_sent_at = now_ns();
    if (pick(0, &to, &address)) send_run(to, address, outgoing, size, 1);
}

static void learn(const struct sockaddr_in *source) {
    for (int i = 0; i < flow_count; i++)
        if (flows[i].sin_port == source->sin_port &&
            flows[i].sin_addr.s_addr == source->sin_addr.s_addr) return;
    if (flow_count < MAX_FLOWS) flows[flow_count++] = *source;
}

static void take(const uint8_t *data, int size, struct sockaddr_in *source, int64_t at) {
    if (channel) data += FRAME, size -= FRAME;
    if (size < HEADER) return;
    uint16_t magic;
    uint32_t run, number;
    memcpy(&magic, data, 2);
    memcpy(&run, data + 4, 4);
    memcpy(&number, data + 8, 4);
    run = ntohl(run), number = ntohl(number);
    if (ntohs(magic) != MAGIC) return;
    switch (data[2]) {
    case DATA:
        if (run == expected) received++, received_bytes += size;
        break;
    case PING:
        if (far_fd >= 0) {
            static uint8_t pong[LARGEST];
            send_run(far_fd, source, pong, put(pong, PONG, run, number, size, 0), 1);
        }
        break;
    case PONG:
        if (job == PINGING && ping_waits && run == job_run && number == (uint32_t)ping_number) {
            pings[ping_taken++] = at - ping_sent_at;
            ping_waits = 0;
        }
        break;
    case HELLO:
        if (far_fd >= 0) learn(source);
    }
}

static void receive(int from) {
    uint64_t before = received;
    for (int i = 0; i < 32; i++) {
        struct sockaddr_in source;
        union { char room[CMSG_SPACE(sizeof(int))]; struct cmsghdr align; } control;
        struct iovec part = {incoming, LARGEST};
        struct msghdr message = {&source, sizeof source, &part, 1, control.room,
                                 sizeof control.room, 0};
        int size = recvmsg(from, &message, MSG_DONTWAIT), segment = size;
        if (size < 0 && errno == EAGAIN) break;
        if (size < 0) continue; /* what ICMP said of something sent earlier */
        struct cmsghdr *told = CMSG_FIRSTHDR(&message);
        if (told && told->cmsg_type == UDP_GRO) memcpy(&segment, CMSG_DATA(told), sizeof segment);
        int64_t at = now_ns();
        for (int start = 0; segment > 0 && start < size; start += segment)
            take(incoming + start, size - start < segment ? size - start : segment, &source, at);
    }
    if (acknowledges && acks_fd >= 0 && received != before) {
        uint8_t ack[ACK];
        uint32_t run = htonl(expected);
        uint64_t count = htobe64(received);
        memcpy(ack, &run, 4);
        memcpy(ack + 4, &count, 8);
        if (write(acks_fd, ack, ACK) != ACK) acknowledges = 0; /* the other peer has ended */
    }
}

static void read_acks(void) {
    static uint8_t data[64 * ACK];
    static size_t rest;
    ssize_t size = read(acks_fd, data + rest, sizeof data - rest);
    if (size <= 0) exit(0);
    size += rest;
    rest = size % ACK;
    uint32_t run;
    uint64_t count;
    if (size >= ACK) {
        memcpy(&run, data + size - rest - ACK, 4);
        memcpy(&count, data + size - rest - ACK + 4, 8);
        if (job == SENDING && ntohl(run) == job_run) {
            if (be64toh(count) > acknowledged) acknowledged = be64toh(count);
            progress_at = now_ns();
        }
    }
    memmove(data, data + size - rest, rest);
}

static void begin_sending(double rate, double seconds, char *listed) {
    began = next_at = progress_at = now_ns();
    ends_at = began + (int64_t)(seconds * 1e9);
    interval = rate > 0 ? (int64_t)(burst * 1e9 / rate) : 0;
    sent = acknowledged = given_up = shots = size_count = 0;
    for (char *each = strtok(listed, ","); each && size_count < MAX_SIZES; each = strtok(NULL, ","))
        sizes[size_count++] = atoi(each);
    job = SENDING;
}

static void command(char *line) {
    unsigned run;
    int acks, count;
    double rate, seconds;
    char listed[512];
    if (!strcmp(line, "hello")) {
        for (int i = 0; i < nears; i++) {
            int size = put(outgoing, HELLO, 0, i, HEADER, channel);
            send_run(near_fds[i], NULL, outgoing, size, 1);
        }
        printf("{\"flows\": %d}\n", nears ? nears : flow_count);
    } else if (sscanf(line, "expect %u %d", &run, &acks) == 2) {
        expected = run, acknowledges = acks, received = received_bytes = 0;
        printf("{}\n");
    } else if (!strcmp(line, "count")) {
        printf("{\"received\": %llu, \"bytes\": %llu}\n", (unsigned long long)received,
               (unsigned long long)received_bytes);
    } else if (sscanf(line, "send %u %lf %d %d %lf %511s", &run, &rate, &burst, &window, &seconds,
                      listed) == 6 && burst > 0 && burst <= MAX_BURST) {
        job_run = run;
        begin_sending(rate, seconds, listed);
    } else if (sscanf(line, "ping %u %d %lf %d", &run, &count, &seconds, &ping_size) == 4) {
        job_run = run, ping_count = count < MAX_PINGS ? count : MAX_PINGS;
        ping_number = ping_waits = ping_lost = ping_taken = 0;
        pings = calloc(ping_count, sizeof *pings);
        ends_at = now_ns() + (int64_t)(seconds * 1e9);
        job = PINGING;
    } else {
        fprintf(stderr, "not a command: %s\n", line);
        exit(2);
    }
}

static void read_commands(void) {
    static char text[4096];
    static size_t length;
    ssize_t size = read(STDIN_FILENO, text + length, sizeof text - length - 1);
    if (size <= 0) exit(0);
    length += size;
    for (char *end; (end = memchr(text, '\n', length));) {
        *end = 0;
        command(text);
        length -= end + 1 - text;
        memmove(text, end + 1, length);
    }
}

int main(int count, char **words) {
    for (int i = 1; i + 1 < count; i += 2) {
        if (!strcmp(words[i], "--far")) far_fd = atoi(words[i + 1]);
        if (!strcmp(words[i], "--acks")) acks_fd = atoi(words[i + 1]);
        if (!strcmp(words[i], "--channel")) channel = atoi(words[i + 1]);
        if (!strcmp(words[i], "--near"))
            for (char *fd = strtok(words[i + 1], ","); fd; fd = strtok(NULL, ","))
                if (nears < MAX_FLOWS) near_fds[nears++] = atoi(fd);
    }
    prctl(PR_SET_TIMERSLACK, 1000UL);
    struct pollfd watched[MAX_FLOWS + 3];
    int on = 1, total = 0;
    watched[total++] = (struct pollfd){STDIN_FILENO, POLLIN, 0};
    watched[total++] = (struct pollfd){acks_fd, POLLIN, 0}; /* one that is negative is ignored */
    for (int i = 0; i < nears; i++) watched[total++] = (struct pollfd){near_fds[i], POLLIN, 0};
    if (far_fd >= 0) watched[total++] = (struct pollfd){far_fd, POLLIN, 0};
    for (int i = 2; i < total; i++)
        setsockopt(watched[i].fd, IPPROTO_UDP, UDP_GRO, &on, sizeof on);
    for (;;) {
        int64_t now = now_ns();
        if (job == SENDING && send_due(now) <= now) send_work(now);
        if (job == PINGING) ping_work(now);
        fflush(stdout);
        struct timespec wait = {0}, *until = NULL;
        if (job != IDLE) {
            now = now_ns();
            int64_t due = job == SENDING ? send_due(now) : ping_sent_at + PATIENCE;
            if (job == PINGING && !ping_waits) due = now;
            if (due > now) wait = (struct timespec){(due - now) / 1000000000, (due - now) % 1000000000};
            until = &wait;
        }
        if (ppoll(watched, total, until, NULL) <= 0) continue;
        for (int i = 2; i < total; i++)
            if (watched[i].revents) receive(watched[i].fd);
        if (watched[1].revents) read_acks();
        if (watched[0].revents) read_commands();
    }
}
