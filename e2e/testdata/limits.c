// SPDX-License-Identifier: Apache-2.0
//
// A library for CRIU (LD_PRELOAD) on machines where root lacks CAP_SYS_RESOURCE: the
// kernel then tells no resource limits of other users' processes by prlimit64(2), and
// CRIU cannot dump them. This reads them from /proc/PID/limits instead.
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

// The limits by number (asm-generic/resource.h), as /proc names them.
static const char *const names[] = {
	"Max cpu time", "Max file size", "Max data size", "Max stack size", "Max core file size", "Max resident set",
	"Max processes", "Max open files", "Max locked memory", "Max address space", "Max file locks",
	"Max pending signals", "Max msgqueue size", "Max nice priority", "Max realtime priority", "Max realtime timeout",
};

static rlim64_t value(const char *text)
{
	return strncmp(text, "unlimited", 9) ? strtoull(text, NULL, 10) : RLIM64_INFINITY;
}

static int read_limit(long pid, unsigned long which, struct rlimit64 *limit)
{
	char path[64], line[256], soft[32], hard[32];
	int found = -1;
	FILE *f;

	if (which >= sizeof(names) / sizeof(*names)) {
		errno = EINVAL;
		return -1;
	}
	snprintf(path, sizeof(path), "/proc/%ld/limits", pid);
	f = fopen(path, "re");
	if (!f)
		return -1;
	while (found && fgets(line, sizeof(line), f)) {
		size_t n = strlen(names[which]);
		if (strncmp(line, names[which], n) || sscanf(line + n, "%31s %31s", soft, hard) != 2)
			continue;
		limit->rlim_cur = value(soft);
		limit->rlim_max = value(hard);
		found = 0;
	}
	fclose(f);
	if (found)
		errno = EINVAL;
	return found;
}

long syscall(long number, ...)
{
	long (*next)(long, ...) = (long (*)(long, ...))dlsym(RTLD_NEXT, "syscall");
	long a[6], result;
	va_list list;

	va_start(list, number);
	for (int i = 0; i < 6; i++)
		a[i] = va_arg(list, long);
	va_end(list);
	result = next(number, a[0], a[1], a[2], a[3], a[4], a[5]);
	if (result && number == SYS_prlimit64 && !a[2] && a[3] && errno == EPERM)
		return read_limit(a[0], a[1], (struct rlimit64 *)a[3]);
	return result;
}
