// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"strings"
	"testing"
)

// TestExpectRefuses checks what contradicts itself, before anything is done.
func TestExpectRefuses(t *testing.T) {
	for args, want := range map[string]string{
		"":                                  "say what is expected",
		"--for 1m":                          "say what is expected",
		"--pod a/b":                         "--for 0s is out of range",
		"--pod a/b --for 1ms":               "out of range",
		"--pod a/b --for 1m --cancel":       "exclude each other",
		"--list --pod a/b":                  "stands alone",
		"--list --cancel":                   "stands alone",
		"--list -o yaml":                    "yaml",
		"a/b --for 1m":                      "unknown command",
		"--pod a --for 1m":                  "not a pod",
		"--pod a/b* --for 1m":               "not a pod",
		"--address 10.0.0.0/8 --for 1m":     "not an address",
		"--address 127.0.0.1 --for 1m":      "not an address that one container can have",
		"--container a/b --for 1m":          "not a container's id",
		"--pod a/b --pod c --for 1m":        "not a pod",
		"--address 1.2.3 --for 1m":          "not an address",
		"--address fe80::1%a --for 1m":      "not an address that one container can have",
		"--address 224.0.0.1 --for 1m":      "not an address that one container can have",
		"--address 192.0.2.1 --for 100h":    "out of range",
		"--pod a/b --for 1m --containers 0": "--containers 0 is out of range",
	} {
		_, _, err := runCommand(newExpectCmd(), strings.Fields(args)...)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("expect %s: got %v, want %s", args, err, want)
		}
	}
}

func TestGuardRefuses(t *testing.T) {
	for args, want := range map[string]string{
		"":                           "name the address",
		"192.0.2.1":                  "--for 0s is out of range",
		"192.0.2.1 --for 100h":       "out of range",
		"192.0.2.1 --for 1m --off":   "exclude each other",
		"192.0.2.1 --list":           "stands alone",
		"--list --off":               "stands alone",
		"--list -o yaml":             "yaml",
		"192.0.2.1 192.0.2.2":        "at most 1 arg",
		"192.0.2.0/24 --for 1m":      "not an address",
		"0.0.0.0 --for 1m":           "not an address that one container can have",
		"fe80::1%lo --for 1m":        "not an address that one container can have",
		"127.0.0.1 --for 1m":         "not an address that one container can have",
		"--off example --for 0s":     "not an address",
		"255.255.255.255 --for 1m":   "not an address that one container can have",
		"::ffff:127.0.0.1 --for 10m": "not an address that one container can have",
	} {
		_, _, err := runCommand(newGuardCmd(), strings.Fields(args)...)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("guard %s: got %v, want %s", args, err, want)
		}
	}
}
