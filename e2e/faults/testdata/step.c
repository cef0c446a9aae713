// SPDX-License-Identifier: Apache-2.0
/*
 * The action-script before and after ours: reports the action to the world, waits
 * until that has done what is to happen at this step, and exits as it says. In C,
 * since it is executed some twenty times in a run, while tasks are stopped.
 *
 * step is called by the name faults-before or faults-after.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

/* The actions at which nothing of ours happens are not reported. */
static const char *const reported[] = {
	"pre-dump", "network-lock", "post-dump", "network-unlock",
	"pre-restore", "post-setup-namespaces", "post-resume", NULL,
};

int main(int argc, char **argv)
{
	struct sockaddr_un to = {.sun_family = AF_UNIX, .sun_path = "/run/faults.sock"};
	const char *action = getenv("CRTOOLS_SCRIPT_ACTION");
	const char *name = argc > 0 ? strrchr(argv[0], '-') : NULL;
	const char *const *a;
	char line[128], answer = '0';
	int fd, n;

	if (!action || !name)
		return 0;
	for (a = reported; *a && strcmp(*a, action); a++)
		;
	if (!*a)
		return 0;
	fd = socket(AF_UNIX, SOCK_STREAM, 0);
	if (fd < 0 || connect(fd, (struct sockaddr *)&to, sizeof(to)))
		return 0;
	n = snprintf(line, sizeof(line), "%s %s\n", name + 1, action);
	if (write(fd, line, n) != n || read(fd, &answer, 1) != 1)
		return 0;
	return answer != '0';
}
