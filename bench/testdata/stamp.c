// SPDX-License-Identifier: Apache-2.0
/* An action-script that appends "ACTION NANOSECONDS", by the monotonic clock, to
 * the file stamps in its own directory. It does nothing else, to add as little as
 * possible to what is measured. */
#include <fcntl.h>
#include <libgen.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

int main(int argc, char **argv)
{
	struct timespec now;
	clock_gettime(CLOCK_MONOTONIC, &now);
	char path[4096], line[128];
	const char *action = getenv("CRTOOLS_SCRIPT_ACTION");
	(void)argc;
	snprintf(path, sizeof path, "%s", argv[0]);
	snprintf(path, sizeof path, "%s/stamps", dirname(strdup(path)));
	int fd = open(path, O_WRONLY | O_CREAT | O_APPEND, 0600);
	int n = snprintf(line, sizeof line, "%s %lld\n", action ? action : "-",
			 now.tv_sec * 1000000000LL + now.tv_nsec);
	return fd < 0 || write(fd, line, n) != n;
}
