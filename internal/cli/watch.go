// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/criu-netfreeze/criu-netfreeze/internal/code"
	"github.com/criu-netfreeze/criu-netfreeze/internal/freeze"
	"github.com/criu-netfreeze/criu-netfreeze/internal/journal"
	"github.com/criu-netfreeze/criu-netfreeze/internal/printable"
	"github.com/criu-netfreeze/criu-netfreeze/internal/report"
)

// Bounds of --interval.
const (
	minWatch = 100 * time.Millisecond
	maxWatch = time.Hour
)

func newWatchCmd() *cobra.Command {
	var interval time.Duration
	cmd := &cobra.Command{
		Use:   "watch",
		Short: "Show what is frozen, live, until it is interrupted",
		Long: `Show what netfreeze status shows, and the last dumps and restores, again and again.
Where the output is no terminal, a line is printed for each change instead.`,
		Example: `  netfreeze watch
  netfreeze watch --interval 200ms | tee freezes.log`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if interval < minWatch || interval > maxWatch {
				return code.New(code.Usage, fmt.Sprintf("--interval %v is out of range: %v to %v", interval, minWatch, maxWatch))
			}
			if err := needRoot(); err != nil {
				return err
			}
			ctx, stop := signal.NotifyContext(cmd.Context(), os.Interrupt, unix.SIGTERM)
			defer stop()
			w := watcher{out: cmd.OutOrStdout(), known: map[string]string{}}
			show := w.changes
			if isTerminal(cmd.OutOrStdout()) {
				show = w.screen
			}
			for tick := time.NewTicker(interval); ; {
				list, err := keeper().List()
				logged, err2 := journal.All()
				if err := errors.Join(show(list, logged), err, err2); err != nil {
					return err
				}
				select {
				case <-ctx.Done():
					return nil
				case <-tick.C:
				}
			}
		},
	}
	cmd.Flags().DurationVar(&interval, "interval", 500*time.Millisecond, "how often to look")
	return cmd
}

// watcher shows one look after the other.
type watcher struct {
	out   io.Writer
	known map[string]string // what was said last of each freeze and report
	first bool
}

// lastReports is how many dumps and restores the screen shows.
const lastReports = 10

// screen draws everything anew, from the top left corner on.
func (w *watcher) screen(list []freeze.Status, logged []*journal.Report) error {
	var b bytes.Buffer
	fmt.Fprintf(&b, "netfreeze watch, %s (Ctrl-C ends it)\n\n", time.Now().Format("15:04:05"))
	err := writeTable(&b, list)
	b.WriteString("\n")
	err = errors.Join(err, writeLog(&b, logged[max(0, len(logged)-lastReports):]))
	const home, toEndOfLine, toEndOfScreen = "\x1b[H", "\x1b[K", "\x1b[J"
	_, err2 := io.WriteString(w.out, home+strings.ReplaceAll(b.String(), "\n", toEndOfLine+"\n")+toEndOfScreen)
	return errors.Join(err, err2)
}

// changes prints a line for whatever has changed since the last look.
func (w *watcher) changes(list []freeze.Status, logged []*journal.Report) error {
	now := map[string]string{}
	var lines []string
	say := func(key, text string) {
		now[key] = text
		if w.known[key] != text {
			lines = append(lines, text)
		}
	}
	for _, s := range list {
		say("freeze "+s.ID+s.NetNS, fmt.Sprintf("%s %s: %s", dash(place(s)), dash(short(s.Container)), state(s)))
	}
	for key, text := range w.known {
		if _, still := now[key]; !still && strings.HasPrefix(key, "freeze ") {
			lines = append(lines, text[:strings.LastIndex(text, ": ")]+": no longer frozen")
		}
	}
	for _, r := range logged {
		key, text := "report "+r.ID, fmt.Sprintf("%s %s: %s", r.Op, r.ID, report.Verdict(r))
		if now[key] = text; w.first && w.known[key] != text {
			lines = append(lines, text)
		}
	}
	w.known, w.first = now, true
	for _, l := range lines {
		if _, err := fmt.Fprintf(w.out, "%s %s\n", time.Now().Format("15:04:05.000"), printable.Text(l)); err != nil {
			return err
		}
	}
	return nil
}

// state says how a freeze stands, without what changes all the time.
func state(s freeze.Status) string {
	text := s.State
	if s.Policy != "" {
		text += ", policy " + s.Policy
	}
	if s.Note != "" {
		text += " (" + s.Note + ")"
	}
	return text
}
