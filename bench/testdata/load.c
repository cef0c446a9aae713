// SPDX-License-Identifier: Apache-2.0
/* The tree that is dumped: PROCESSES, each with so many THREADS, that together accept
 * CONNECTIONS on all ADDRESSES, IPv4 or IPv6, and read what arrives. They send a single byte back,
 * and nothing else. They are small, so that CRIU does not spend the time for which
 * it stops them on copying memory.
 *
 * usage: load PROCESSES THREADS CONNECTIONS PORT ADDRESS... */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

static int listen_on(const char *address, int port)
{
	struct sockaddr_in v4 = { .sin_family = AF_INET, .sin_port = htons(port) };
	struct sockaddr_in6 v6 = { .sin6_family = AF_INET6, .sin6_port = htons(port) };
	int is4 = inet_pton(AF_INET, address, &v4.sin_addr) == 1;
	int on = 1, fd;

	if (!is4 && inet_pton(AF_INET6, address, &v6.sin6_addr) != 1)
		return -1;
	fd = socket(is4 ? AF_INET : AF_INET6, SOCK_STREAM | SOCK_NONBLOCK, 0);
	setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
	if (bind(fd, is4 ? (void *)&v4 : (void *)&v6, is4 ? sizeof v4 : sizeof v6) < 0 || listen(fd, 4096) < 0)
		return -1;
	return fd;
}

/* serve accepts the given number of connections and reads for ever. */
static void serve(const int *listeners, int n, int quota)
{
	struct epoll_event ev[64];
	char buf[65536];
	int ep = epoll_create1(EPOLL_CLOEXEC);

	/* One process is woken per connection; one that has accepted its share
	 * stops watching the listeners. */
	for (int i = 0; i < n && quota > 0; i++) {
		ev[0].events = EPOLLIN | EPOLLEXCLUSIVE;
		ev[0].data.fd = listeners[i];
		epoll_ctl(ep, EPOLL_CTL_ADD, listeners[i], ev);
	}
	for (;;) {
		int events = epoll_wait(ep, ev, 64, -1);
		for (int i = 0; i < events; i++) {
			int fd = ev[i].data.fd, listener = 0;
			for (int j = 0; j < n; j++)
				listener |= fd == listeners[j];
			if (!listener) {
				ssize_t got = read(fd, buf, sizeof buf);
				if (got <= 0)
					close(fd);
				else if (got == 1 && write(fd, buf, 1) != 1)
					exit(1);
				continue;
			}
			struct epoll_event conn = { .events = EPOLLIN };
			if (quota == 0 || (conn.data.fd = accept(fd, NULL, NULL)) < 0)
				continue;
			epoll_ctl(ep, EPOLL_CTL_ADD, conn.data.fd, &conn);
			if (--quota == 0)
				for (int j = 0; j < n; j++)
					epoll_ctl(ep, EPOLL_CTL_DEL, listeners[j], NULL);
		}
	}
}

/* idle is what the threads do beside the first one. */
static void *idle(void *none)
{
	for (;;)
		pause();
	return none;
}

static int start_threads(int n)
{
	pthread_attr_t attr;
	pthread_t thread;

	pthread_attr_init(&attr);
	pthread_attr_setstacksize(&attr, 65536);
	while (n-- > 0)
		if (pthread_create(&thread, &attr, idle, NULL))
			return -1;
	return 0;
}

int main(int argc, char **argv)
{
	struct rlimit files;
	int listeners[8], n = argc - 5;

	if (argc < 6 || n > 8)
		return 2;
	int processes = atoi(argv[1]), threads = atoi(argv[2]), connections = atoi(argv[3]);
	getrlimit(RLIMIT_NOFILE, &files);
	files.rlim_cur = files.rlim_max;
	setrlimit(RLIMIT_NOFILE, &files);
	for (int i = 0; i < n; i++)
		if ((listeners[i] = listen_on(argv[5 + i], atoi(argv[4]))) < 0) {
			perror(argv[5 + i]);
			return 1;
		}
	int self = 0;
	for (int i = 1; i < processes && !self; i++)
		if (fork() == 0)
			self = i;
	if (start_threads(threads - 1) < 0)
		return 1;
	serve(listeners, n, connections / processes + (self < connections % processes));
}
