// SPDX-License-Identifier: Apache-2.0
/* Plays CRIU's part for action-scripts: executes a script as CRIU does, with
 * standard input closed, and says how long that took.
 *
 * Each line of input is PROGRAM ACTION PID DIR, with "-" for a PID or DIR that is
 * not set; each line of output is the time in nanoseconds from the exec to the
 * exit, and the exit code. For the settler, its end is the end of CRIU. */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static long long now(void)
{
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * 1000000000LL + t.tv_nsec;
}

int main(void)
{
	char line[8192], program[4096], action[64], pid[32], dir[4096];
	setvbuf(stdout, NULL, _IOLBF, 0);
	while (fgets(line, sizeof line, stdin)) {
		if (sscanf(line, "%4095s %63s %31s %4095s", program, action, pid, dir) != 4)
			return 2;
		setenv("CRTOOLS_SCRIPT_ACTION", action, 1);
		setenv("CRTOOLS_INIT_PID", pid, 1);
		if (!strcmp(pid, "-"))
			unsetenv("CRTOOLS_INIT_PID");
		/* CRIU passes the image directory as a descriptor of its own. */
		int images = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
		snprintf(dir, sizeof dir, "/proc/%d/fd/%d", getpid(), images);
		setenv("CRTOOLS_IMAGE_DIR", dir, 1);
		if (images < 0)
			unsetenv("CRTOOLS_IMAGE_DIR");
		int status;
		pid_t child = vfork();
		if (child == 0) {
			close(0);
			execl(program, program, NULL);
			_exit(127);
		}
		/* In the parent, vfork returns once the child has called exec. */
		long long start = now();
		if (child < 0 || waitpid(child, &status, 0) != child)
			return 3;
		printf("%lld %d\n", now() - start, WEXITSTATUS(status));
		if (images >= 0)
			close(images);
	}
	return 0;
}
