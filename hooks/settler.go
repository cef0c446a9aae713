package hooks

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/sirupsen/logrus"
	"golang.org/x/sys/unix"

	"github.com/criu-netfreeze/criu-netfreeze/internal/action"
	"github.com/criu-netfreeze/criu-netfreeze/internal/config"
	"github.com/criu-netfreeze/criu-netfreeze/internal/proc"
	"github.com/criu-netfreeze/criu-netfreeze/internal/record"
)

// lookAgain is how often the settler of a committed dump looks whether CRIU has
// finished, for callers that keep CRIU alive afterwards.
const lookAgain = 20 * time.Millisecond

// linger is how long the settler of a finished restore still answers: a script
// that is listed twice comes twice.
const linger = 2 * time.Second

// Settle is the settler: it does the actions of the one CRIU that id names, in
// the order in which they come, and settles the transaction when CRIU has
// ended. It says on the descriptor ready when it can be reached, or why not.
func Settle(id string, ready *os.File) error {
	s, err := newSettler(id)
	if err != nil {
		_, _ = fmt.Fprintf(ready, "start the settler: %v", err)
		_ = ready.Close()
		return err
	}
	defer s.close()
	_, err = ready.WriteString("ok")
	if err := errors.Join(err, ready.Close()); err != nil {
		return fmt.Errorf("say that the settler is ready: %w", err)
	}
	return s.loop()
}

// settler serves one transaction.
type settler struct {
	id   string
	criu *proc.Process
	lock *os.File
	sock int
	log  *logrus.Logger
	tx   *transaction // nil before the first action

	finished bool // the restore is over and settled
}

func newSettler(id string) (*settler, error) {
	ref, err := proc.ParseRef(id)
	if err != nil {
		return nil, err
	}
	criu, err := ref.Open()
	if err != nil {
		return nil, fmt.Errorf("take hold of CRIU: %w", err)
	}
	if err := record.MakeDir(); err != nil {
		criu.Close()
		return nil, err
	}
	lock, err := record.Lock(id)
	if err != nil {
		criu.Close()
		return nil, err
	}
	sock, err := listen(record.Socket(id))
	if err != nil {
		record.Unlock(id, lock)
		criu.Close()
		return nil, err
	}
	s := &settler{id: id, criu: criu, lock: lock, sock: sock, log: newLog()}
	go s.leaveCgroups()
	return s, nil
}

// leaveCgroups moves the settler to the control groups of whoever called CRIU.
// On a restore runc has CRIU in the container's own (criuApplyCgroups), where
// the settler would be paused and killed with it, and keep it from going away.
// It is done beside the first action, since it can take the kernel a while.
func (s *settler) leaveCgroups() {
	st, err := proc.ReadStat(s.criu.PID)
	if err == nil && st.PPID > 1 { // 1 has called nobody, it adopted CRIU
		err = proc.JoinCgroups(st.PPID)
	}
	if err != nil {
		s.log.Debug(oneLine(err))
	}
}

func (s *settler) close() {
	tidy()
	if s.tx != nil {
		s.tx.close()
	}
	record.Unlock(s.id, s.lock)
	_ = unix.Close(s.sock)
	s.criu.Close()
}

func listen(path string) (int, error) {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, err
	}
	_ = os.Remove(path) // of a settler that was killed; the lock is ours
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

// loop does the actions as they come until there is nothing left to settle.
// One thing at a time: no action runs beside another or beside the settlement.
func (s *settler) loop() error {
	for {
		fds := []unix.PollFd{
			{Fd: int32(s.sock), Events: unix.POLLIN},
			{Fd: int32(s.criu.FD()), Events: unix.POLLIN},
		}
		n, err := unix.Poll(fds, s.timeout())
		switch {
		case errors.Is(err, unix.EINTR):
			continue
		case err != nil:
			return err
		case fds[0].Revents != 0:
			s.serve()
			if s.tx == nil {
				return nil // refused
			}
			continue
		}
		switch {
		case s.finished: // and CRIU has ended, or nothing came any more
			s.tx.resumer.wait()
			return nil
		case s.tx == nil: // CRIU has ended without a word
			return nil
		case n > 0, s.tx.succeeded(), s.tx.abandoned():
			return s.tx.settle()
		}
	}
}

// timeout is how long to wait for the next event, in milliseconds.
func (s *settler) timeout() int {
	switch {
	case s.finished:
		return int(linger.Milliseconds())
	case s.tx != nil && s.tx.rec.Phase == record.Committed:
		return int(lookAgain.Milliseconds())
	}
	return -1
}

// serve takes one request, does it, and answers.
func (s *settler) serve() {
	fd, err := retry(func() (int, error) {
		fd, _, err := unix.Accept4(s.sock, unix.SOCK_CLOEXEC)
		return fd, err
	})
	if err != nil {
		return
	}
	defer unix.Close(fd) //nolint:errcheck // the answer has been sent
	// A caller that connects and says nothing must not keep the settlement waiting.
	_ = unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Sec: 1})
	buf := make([]byte, action.MaxMessage)
	n, err := retry(func() (int, error) { return unix.Read(fd, buf) })
	if err != nil {
		return
	}
	reply := func(kind byte, text string) {
		_, _ = retry(func() (int, error) { return 0, unix.Send(fd, append([]byte{kind}, text...), unix.MSG_NOSIGNAL) })
	}
	out := &logLines{send: func(line string) { reply('L', line) }}
	restoreLog := s.logTo(out)
	err = s.act(string(buf[:n]))
	if err != nil {
		s.log.Error(oneLine(err))
	}
	restoreLog()
	if err != nil {
		reply('E', "1")
	} else {
		reply('E', "0")
	}
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

// act parses a request and does the action.
func (s *settler) act(request string) error {
	a, err := parseRequest(request)
	if err != nil {
		return err
	}
	if err := s.do(a); err != nil {
		return fmt.Errorf("%s: %w", a.name, err)
	}
	return nil
}

// oneLine makes one line of an error: CRIU's log is read line by line.
func oneLine(err error) string {
	return strings.Join(strings.FieldsFunc(err.Error(), func(r rune) bool { return r == '\n' }), "; ")
}

// logLines passes complete lines on.
type logLines struct {
	send func(string)
	rest []byte
}

func (l *logLines) Write(p []byte) (int, error) {
	l.rest = append(l.rest, p...)
	for {
		i := bytes.IndexByte(l.rest, '\n')
		if i < 0 {
			return len(p), nil
		}
		line := l.rest[:i+1]
		if len(line) > action.MaxMessage-1 {
			line = append(line[:action.MaxMessage-2:action.MaxMessage-2], '\n')
		}
		l.send(string(line))
		l.rest = l.rest[i+1:]
	}
}

// configure reads the configuration and sets the log up as it says.
func (s *settler) configure() (*config.Config, error) {
	cfg, err := config.Load(config.Path)
	if err != nil {
		return nil, err
	}
	level, err := logrus.ParseLevel(cfg.Log.Level)
	if err != nil {
		return nil, err
	}
	s.log.SetLevel(level)
	return cfg, addLogFile(s.log, cfg.Log.File)
}
