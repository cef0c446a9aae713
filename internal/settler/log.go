package settler

import (
	"bytes"
	"fmt"
	"io"
	"log/syslog"
	"os"
	"slices"
	"strings"

	"github.com/sirupsen/logrus"

	"github.com/criu-netfreeze/criu-netfreeze/internal/action"
)

// newLog returns the settler's log. During an action it goes to the script that
// asked, hence to CRIU's log. What is said later goes to syslog: CRIU's log may
// be on its way into an archive by then.
func newLog() *logrus.Logger {
	log := logrus.New()
	log.SetFormatter(lineFormat{})
	log.SetOutput(&systemLog{})
	return log
}

// systemLog writes to syslog, if there is one, from the first line on.
type systemLog struct {
	tried  bool
	writer *syslog.Writer
}

// Write implements io.Writer. It never fails: there is nobody to tell.
func (l *systemLog) Write(p []byte) (int, error) {
	if !l.tried {
		l.tried = true
		l.writer, _ = syslog.New(syslog.LOG_DAEMON|syslog.LOG_NOTICE, "netfreeze")
	}
	if l.writer != nil {
		_, _ = l.writer.Write(p)
	}
	return len(p), nil
}

// redirect has the log go to w until the returned function is called.
func redirect(log *logrus.Logger, w io.Writer) func() {
	old := log.Out
	log.SetOutput(w)
	return func() { log.SetOutput(old) }
}

// lineFormat writes one line per message, the same in CRIU's log and ours:
// "netfreeze: LEVEL: MESSAGE (key=value …)". CRIU's log is read line by line, so
// the lines of a message become one, with semicolons in between.
type lineFormat struct{}

// Format implements logrus.Formatter.
func (lineFormat) Format(e *logrus.Entry) ([]byte, error) {
	var b strings.Builder
	lines := strings.FieldsFunc(e.Message, func(r rune) bool { return r == '\n' || r == '\r' })
	fmt.Fprintf(&b, "netfreeze: %s: %s", e.Level, strings.Join(lines, "; "))
	if len(e.Data) > 0 {
		keys := make([]string, 0, len(e.Data))
		for k := range e.Data {
			keys = append(keys, k)
		}
		slices.Sort(keys)
		for i, k := range keys {
			sep := ", "
			if i == 0 {
				sep = " ("
			}
			fmt.Fprintf(&b, "%s%s=%v", sep, k, e.Data[k])
		}
		b.WriteByte(')')
	}
	b.WriteByte('\n')
	return []byte(b.String()), nil
}

// logLines passes complete lines on.
type logLines struct {
	send func(string)
	rest []byte
}

// Write implements io.Writer.
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

// fileHook writes every message to a file as well, with the time before it.
type fileHook struct{ file *os.File }

// Levels implements logrus.Hook.
func (fileHook) Levels() []logrus.Level { return logrus.AllLevels }

// Fire implements logrus.Hook.
func (h fileHook) Fire(e *logrus.Entry) error {
	line, err := lineFormat{}.Format(e)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(h.file, "%s [%d] %s", e.Time.Format("2006-01-02T15:04:05.000000Z07:00"), os.Getpid(), line)
	return err
}

// addLogFile makes the log go to path as well.
func addLogFile(log *logrus.Logger, path string) error {
	if path == "" || len(log.Hooks) > 0 {
		return nil
	}
	f, err := os.OpenFile(path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return fmt.Errorf("open the log file that netfreeze.toml names: %w", err)
	}
	log.AddHook(fileHook{f})
	return nil
}
