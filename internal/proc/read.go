// SPDX-License-Identifier: Apache-2.0

package proc

import (
	"errors"
	"os"

	"golang.org/x/sys/unix"
)

// readFile is os.ReadFile for files in /proc, in four system calls instead of ten:
// those of os prepare to wait for a file, which is never done here. A tree may have
// thousands of tasks, and CRIU needs the processors while we look at them.
func readFile(path string) ([]byte, error) {
	const firstRead = 1024 // most files are smaller; the largest of them, status, has about 1.5 KB
	fd, err := retry(func() (int, error) { return unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC, 0) })
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: path, Err: err}
	}
	defer unix.Close(fd) // opened for reading
	data := make([]byte, 0, firstRead)
	for {
		n, err := retry(func() (int, error) { return unix.Read(fd, data[len(data):cap(data)]) })
		if err != nil {
			return nil, &os.PathError{Op: "read", Path: path, Err: err}
		}
		if n == 0 {
			return data, nil
		}
		if data = data[:len(data)+n]; len(data) == cap(data) {
			data = append(data, 0)[:len(data)]
		}
	}
}

// retry repeats a system call that a signal of Go's runtime interrupts.
func retry(call func() (int, error)) (int, error) {
	for {
		n, err := call()
		if !errors.Is(err, unix.EINTR) {
			return n, err
		}
	}
}
