// SPDX-License-Identifier: Apache-2.0

package install

import (
	"fmt"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestWarnings(t *testing.T) {
	want := map[string][]string{
		"contradicting.conf": {
			"8: network-lock iptables: stands after our skip and wins",
			"9: skip-in-flight: connections that are not accepted yet are lost; we let the application accept them first, so that it is not needed",
			"10: tcp-close: CRIU closes the established connections on restore, so that nothing is left to go on",
			"11: no-tcp-established: stands after our tcp-established and wins: a tree with established connections cannot be dumped",
			"12: leave-stopped: CRIU leaves the tasks stopped whatever the policy says",
			"13: log-file /var/log/criu one.log: stands after our /var/log/criu.log and wins",
			"14: manage-cgroups strict: stands after our ignore and wins",
			"15: action-script /usr/libexec/criu-netfreeze/netfreeze-hook: listed a second time, CRIU runs it twice for each action",
		},
		"crlf.conf": {"10: the line ends in CR LF: CRIU takes the CR for a part of it and exits with an error"},
		"dashes.conf": {
			"8: --tcp-established: CRIU adds the dashes itself and exits with an error: write tcp-established",
			"9: --network-lock: CRIU adds the dashes itself and exits with an error: write network-lock",
		},
		"assigned.conf": {
			"8: network-lock iptables: stands after our skip and wins",
			"9: manage-cgroups soft: stands after our ignore and wins",
		},
		"tabs.conf": {
			"8: log-file dump.log: stands after our /var/log/criu.log and wins",
			"9: network-lock nftables: stands after our skip and wins",
		},
		"quoted.conf":           {`9: log-file a " quote.log: stands after our /var/log/criu.log and wins`},
		"no-final-newline.conf": {"9: log-file dump.log: stands after our /var/log/criu.log and wins"},
	}
	for name, content := range sampleFiles(t, "*.conf") {
		_, warnings, err := Add(content, full())
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, w := range warnings {
			got = append(got, fmt.Sprintf("%d: %s", w.Line, w.Text))
		}
		if diff := cmp.Diff(want[name], got); diff != "" {
			t.Errorf("%s: %s", name, diff)
		}
	}
}

// With no lock, log or cgroup mode of our own, those of the file are no
// contradiction.
func TestWarningsOfLeastBlock(t *testing.T) {
	_, got, err := Add([]byte("network-lock nftables\nlog-file x\nmanage-cgroups=soft\n"), Block{Scripts: []string{hook}})
	if err != nil || len(got) != 0 {
		t.Errorf("got %v, %v", got, err)
	}
	_, got, err = Add([]byte("network-lock iptables\n"), Block{Scripts: []string{hook}})
	if err != nil || len(got) != 1 {
		t.Errorf("iptables: got %v, %v", got, err)
	}
}

func TestParseLine(t *testing.T) {
	tests := []struct {
		in, name, value string
		ok              bool
	}{
		{"", "", "", false},
		{"\n", "", "", false},
		{" \t\r\n", "", "", false},
		{"# x", "", "", false},
		{"  #x\n", "", "", false},
		{"tcp-established\n", "tcp-established", "", true},
		{"tcp-established # why\n", "tcp-established", "", true},
		{"\tlog-file  x.log # why\n", "log-file", "x.log", true},
		{"log-file x.log#why\n", "log-file", "x.log", true},
		{"log-file\tx.log", "log-file", "x.log", true},
		{`log-file "x y.log" # why`, "log-file", "x y.log", true},
		{`log-file "x \"y\"" # why`, "log-file", `x "y"`, true},
		{`log-file "x`, "log-file", "x", true},
		{`log-file ""`, "log-file", "", true},
		{"network-lock=skip\n", "network-lock", "skip", true},
		{"tcp-close\r\n", "tcp-close", "", true},
	}
	for _, tt := range tests {
		name, value, ok := parseLine(tt.in)
		if name != tt.name || value != tt.value || ok != tt.ok {
			t.Errorf("%q: got %q, %q, %t", tt.in, name, value, ok)
		}
	}
}
