// SPDX-License-Identifier: Apache-2.0

package config

import (
	"fmt"
	"strings"
)

// TOML prints the configuration in the syntax that [Parse] reads, with the value
// of every key, defaults included.
func (c *Config) TOML() string {
	var b strings.Builder
	fmt.Fprintf(&b, "backend = %s\n", quote(string(c.Backend)))
	fmt.Fprintf(&b, "policy = %s\n", quote(string(c.Policy)))
	fmt.Fprintf(&b, "ttl = %s\n", quote(FormatDuration(c.TTL)))
	fmt.Fprintf(&b, "drain = %s\n", quote(FormatDuration(c.Drain)))
	fmt.Fprintf(&b, "quiet = %s\n", quote(string(c.Quiet)))
	fmt.Fprintf(&b, "quiet-time = %s\n", quote(FormatDuration(c.QuietTime)))
	fmt.Fprintf(&b, "restore-failure = %s\n", quote(string(c.RestoreFailure)))
	fmt.Fprintf(&b, "resume = %s\n", quote(string(c.Resume)))
	fmt.Fprintf(&b, "nudge-packets = %d\n", c.NudgePackets)
	fmt.Fprintf(&b, "announce-count = %d\n", c.AnnounceCount)
	fmt.Fprintf(&b, "announce-interval = %s\n", quote(FormatDuration(c.AnnounceInterval)))
	fmt.Fprintf(&b, "hold-then-kill = %s\n", quote(FormatDuration(c.HoldThenKill)))
	fmt.Fprintf(&b, "hold-sigterm = %s\n", quote(string(c.HoldSigterm)))
	fmt.Fprintf(&b, "restart = %s\n", quote(string(c.Restart)))
	fmt.Fprintf(&b, "answer = %s\n", quote(string(c.Answer)))
	fmt.Fprintf(&b, "annotations = %t\n", c.Annotations)
	fmt.Fprintf(&b, "\n[log]\nlevel = %s\nfile = %s\n", quote(c.Log.Level), quote(c.Log.File))
	for i := range c.Containers {
		c.Containers[i].encode(&b)
	}
	return b.String()
}

func (r *Rule) encode(b *strings.Builder) {
	b.WriteString("\n[[container]]\n")
	for _, f := range []struct{ key, value string }{
		{"id", r.ID},
		{"name", r.Name},
		{"pod", r.Pod},
		{"backend", string(r.Backend)},
		{"policy", string(r.Policy)},
		{"answer", string(r.Answer)},
	} {
		if f.value != "" {
			fmt.Fprintf(b, "%s = %s\n", f.key, quote(f.value))
		}
	}
	if r.TTL != nil {
		fmt.Fprintf(b, "ttl = %s\n", quote(FormatDuration(*r.TTL)))
	}
	if r.Drain != nil {
		fmt.Fprintf(b, "drain = %s\n", quote(FormatDuration(*r.Drain)))
	}
	if r.Quiet != "" {
		fmt.Fprintf(b, "quiet = %s\n", quote(string(r.Quiet)))
	}
	if r.QuietTime != nil {
		fmt.Fprintf(b, "quiet-time = %s\n", quote(FormatDuration(*r.QuietTime)))
	}
}

// quote prints a TOML basic string, whose escapes are not quite Go's.
func quote(s string) string {
	var b strings.Builder
	b.WriteByte('"')
	for _, r := range s {
		switch {
		case r == '"' || r == '\\':
			b.WriteByte('\\')
			b.WriteRune(r)
		case r < ' ' || r == 0x7f:
			fmt.Fprintf(&b, `\u%04x`, r)
		default:
			b.WriteRune(r)
		}
	}
	b.WriteByte('"')
	return b.String()
}
