// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"
)

// When a command says that it waits: soon on a terminal, where the line goes again, and
// later elsewhere, where it stays.
const (
	waitsOnTerminal = 500 * time.Millisecond
	waitsElsewhere  = 2 * time.Second
	waitsAgain      = 200 * time.Millisecond
)

// waiting says on stderr that a command waits, and for what, until the returned function
// is called. It says nothing of a wait that is short, or if it is to be quiet.
func waiting(cmd *cobra.Command, format string, args ...any) (done func()) {
	if quiet(cmd) {
		return func() {}
	}
	w := cmd.ErrOrStderr()
	return waitOn(w, isTerminal(w), fmt.Sprintf(format, args...))
}

func waitOn(w io.Writer, terminal bool, what string) (done func()) {
	stop, stopped := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(stopped)
		began, next := time.Now(), waitsElsewhere
		if terminal {
			next = waitsOnTerminal
		}
		for said := false; ; said = true {
			select {
			case <-stop:
				if terminal && said {
					_, _ = io.WriteString(w, "\r\x1b[K")
				}
				return
			case <-time.After(next):
			}
			text := fmt.Sprintf("waiting for %s, %d s", what, int(time.Since(began).Seconds()))
			if !terminal {
				_, _ = fmt.Fprintln(w, "netfreeze: "+text)
				<-stop
				return
			}
			_, _ = io.WriteString(w, "\r"+text+"\x1b[K")
			next = waitsAgain
		}
	}()
	return func() {
		close(stop)
		<-stopped
	}
}
