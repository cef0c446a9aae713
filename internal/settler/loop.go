// SPDX-License-Identifier: Apache-2.0

package settler

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/criu-netfreeze/criu-netfreeze/internal/action"
	"github.com/criu-netfreeze/criu-netfreeze/internal/code"
)

// listen returns a socket on which the action-script can reach the settler at path.
func listen(path string) (int, error) {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, err
	}
	_ = os.Remove(path) // left by a settler that was killed: we hold the lock, so it is nobody's
	err = unix.Bind(fd, &unix.SockaddrUnix{Name: path})
	if err == nil {
		err = unix.Listen(fd, 4)
	}
	if err != nil {
		_ = unix.Close(fd)
		return -1, fmt.Errorf("listen on %s: %w", path, err)
	}
	return fd, nil
}

// loop does the actions as they come, until nothing is left to settle. No action runs
// at the same time as another one or as the settlement.
func (s *settler) loop() error {
	for {
		fds := []unix.PollFd{
			{Fd: int32(s.sock), Events: unix.POLLIN},
			{Fd: int32(s.env.CRIU.FD()), Events: unix.POLLIN},
		}
		n, err := unix.Poll(fds, s.timeout())
		switch {
		case errors.Is(err, unix.EINTR):
			continue
		case err != nil:
			return err
		case fds[0].Revents != 0:
			if err := s.serve(); err != nil {
				s.env.Log.Error(err)
				time.Sleep(failedServe)
				if fds[1].Revents == 0 {
					continue // if CRIU has ended, no more actions come
				}
			} else if s.tx == nil {
				return nil // refused
			} else {
				continue
			}
		}
		switch {
		case s.tx == nil || s.tx.Finished(): // CRIU has ended, or linger is over
			return nil
		case n > 0 && fds[1].Revents != 0, s.tx.Concluded():
			return s.tx.Settle()
		}
	}
}

// failedServe is how long to wait after a call could not even be accepted, because
// there are no descriptors left, for example: it would fail again at once.
const failedServe = 100 * time.Millisecond

// timeout is how long to wait for the next event, in milliseconds.
func (s *settler) timeout() int {
	switch {
	case s.tx == nil:
	case s.tx.Finished():
		return int(linger.Milliseconds())
	case s.tx.Polls():
		return int(pollInterval.Milliseconds())
	}
	return -1
}

// serve accepts one request, does it, and answers. It returns an error only if no
// request could be read; one from the action itself goes into the answer.
func (s *settler) serve() error {
	fd, err := retry(func() (int, error) {
		fd, _, err := unix.Accept4(s.sock, unix.SOCK_CLOEXEC)
		return fd, err
	})
	if err != nil {
		return fmt.Errorf("take an action from the action-script: %w", err)
	}
	defer unix.Close(fd)
	// A caller that connects and says nothing must not keep the settlement waiting.
	_ = unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Sec: 1})
	buf := make([]byte, action.MaxMessage)
	n, err := retry(func() (int, error) { return unix.Read(fd, buf) })
	if err != nil {
		return fmt.Errorf("read an action of the action-script: %w", err)
	}
	reply := func(kind byte, text string) {
		_, _ = retry(func() (int, error) { return 0, unix.Send(fd, append([]byte{kind}, text...), unix.MSG_NOSIGNAL) })
	}
	restoreLog := redirect(s.env.Log, &logLines{send: func(line string) { reply(action.AnswerLine, line) }})
	began := time.Now()
	req, err := s.act(string(buf[:n]))
	took := time.Since(began)
	if err != nil {
		said := err
		if req.Action != "" {
			said = fmt.Errorf("%s: %w", req.Action, err)
		}
		s.env.Log.Error(code.Any(said))
	}
	restoreLog()
	if err != nil {
		reply(action.AnswerEnd, "1")
	} else {
		reply(action.AnswerEnd, "0")
	}
	s.report.did(req, began, took, s.tx, err) // CRIU need not wait for that
	return nil
}

// retry repeats a system call that a signal interrupts, as Go's own ones do: a
// socket with a time-out is not restarted by the kernel (signal(7)), and the
// runtime preempts goroutines by signals.
func retry(call func() (int, error)) (int, error) {
	for {
		n, err := call()
		if !errors.Is(err, unix.EINTR) {
			return n, err
		}
	}
}

// hangTime is after which time an action hangs: the action-script has given up by then,
// and so has CRIU.
var hangTime = (action.Patience + 2) * time.Second

// act parses a request and does the action. A settler that hangs in one ends, since it
// would keep everybody from undoing what it has done: the locks go with it, and its
// record tells the next one.
func (s *settler) act(message string) (action.Request, error) {
	req, err := parseRequest(message)
	if err != nil {
		return req, err
	}
	late := time.AfterFunc(hangTime, func() {
		s.env.Log.Error(code.New(code.NoSettler, req.Action+": the settler hangs, and ends; netfreeze status shows what it leaves"))
		os.Exit(1)
	})
	defer late.Stop()
	return req, s.do(req)
}

// parseRequest is the inverse of action.Request.String.
func parseRequest(message string) (action.Request, error) {
	f := strings.Split(message, "\x00")
	if len(f) != 5 || f[0] != action.Version {
		return action.Request{}, code.New(code.Versions, "the action-script and the netfreeze program are not of the same version: install both anew")
	}
	return action.Request{Script: f[1], Action: f[2], ImageDir: f[3], InitPID: f[4]}, nil
}
