// SPDX-License-Identifier: Apache-2.0

package settler

import (
	"bytes"
	"fmt"
	"io"
	"log/syslog"
	"maps"
	"os"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/sirupsen/logrus"

	"github.com/criu-netfreeze/criu-netfreeze/internal/action"
	"github.com/criu-netfreeze/criu-netfreeze/internal/printable"
)

// newLog returns the settler's log. During an action, lines go to the action-script
// that asked for it, and from there to CRIU's log. All others go to syslog: once CRIU has
// ended, its log may be on its way into an archive.
func newLog() *logrus.Logger {
	log := logrus.New()
	log.SetFormatter(lineFormat{})
	log.SetOutput(&systemLog{})
	return log
}

// systemLog writes to syslog. It connects when the first line comes, and does nothing
// if no syslog runs.
type systemLog struct {
	tried  bool
	writer *syslog.Writer
}

// Write implements io.Writer. It never fails, because there is no other place in which
// a failure could be reported.
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

// redirect sends the log to w until the returned function is called.
func redirect(log *logrus.Logger, w io.Writer) func() {
	old := log.Out
	log.SetOutput(w)
	return func() { log.SetOutput(old) }
}

// maxLine is the length of the longest line, in bytes, with the newline at its end: an
// answer to the action-script holds one.
const maxLine = action.MaxMessage - len("L")

// lineFormat writes one line per message, the same in CRIU's log and ours:
// "netfreeze: LEVEL: MESSAGE (key=value …)". CRIU's log is read line by line, so
// the lines of a message become one, with semicolons in between. Names and annotations
// of containers come from outside; [printable.Text] keeps them from being more than text.
type lineFormat struct{}

// Format implements logrus.Formatter.
func (lineFormat) Format(e *logrus.Entry) ([]byte, error) {
	var b strings.Builder
	lines := strings.FieldsFunc(e.Message, func(r rune) bool { return r == '\n' || r == '\r' })
	fmt.Fprintf(&b, "netfreeze: %s: %s", e.Level, strings.Join(lines, "; "))
	if len(e.Data) > 0 {
		for i, k := range slices.Sorted(maps.Keys(e.Data)) {
			sep := ", "
			if i == 0 {
				sep = " ("
			}
			fmt.Fprintf(&b, "%s%s=%v", sep, k, e.Data[k])
		}
		b.WriteByte(')')
	}
	return []byte(cut(printable.Text(b.String()), maxLine-1) + "\n"), nil
}

// cut returns s, or as much of its beginning as fits into limit bytes with an ellipsis
// behind it.
func cut(s string, limit int) string {
	if len(s) <= limit {
		return s
	}
	const more = "…"
	n := limit - len(more)
	for !utf8.RuneStart(s[n]) {
		n--
	}
	return s[:n] + more
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
		l.send(string(l.rest[:i+1]))
		l.rest = l.rest[i+1:]
	}
}

// fileHook writes every message to a file as well, and prefixes the time and our pid.
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

// addLogFile sends the log to the file at path as well, unless path is "" or that has
// been done before.
func addLogFile(log *logrus.Logger, path string) error {
	isFile := func(h logrus.Hook) bool { _, is := h.(fileHook); return is }
	if path == "" || slices.ContainsFunc(log.Hooks[logrus.InfoLevel], isFile) {
		return nil
	}
	f, err := os.OpenFile(path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return fmt.Errorf("open the log file that netfreeze.toml names: %w", err)
	}
	log.AddHook(fileHook{f})
	return nil
}
