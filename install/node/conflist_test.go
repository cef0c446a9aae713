// SPDX-License-Identifier: Apache-2.0

package node

import (
	"bytes"
	"errors"
	"strings"
	"testing"

	"github.com/criu-netfreeze/criu-netfreeze/internal/code"
)

// TestPlugin adds and removes our entry, beside edits of others.
func TestPlugin(t *testing.T) {
	const ours = entry
	for _, tc := range []struct{ name, before, after string }{
		{"one line", `{"name": "n", "plugins": [{"type": "bridge"}]}`, `{"name": "n", "plugins": [` + ours + `, {"type": "bridge"}]}`},
		{
			"several lines", "{\n  \"plugins\": [\n    {\n      \"type\": \"calico\"\n    },\n    {\"type\": \"portmap\"}\n  ],\n  \"x\": 1\n}\n",
			"{\n  \"plugins\": [" + ours + ", \n    {\n      \"type\": \"calico\"\n    },\n    {\"type\": \"portmap\"}\n  ],\n  \"x\": 1\n}\n",
		},
		{"empty", `{"plugins":[]}`, `{"plugins":[` + ours + `]}`},
		{"a list elsewhere", `{"a": {"plugins": [1]}, "plugins": [{}]}`, `{"a": {"plugins": [1]}, "plugins": [` + ours + `, {}]}`},
	} {
		got, err := addPlugin([]byte(tc.before))
		if err != nil || string(got) != tc.after {
			t.Errorf("%s: %v\n%s", tc.name, err, got)
		}
		if again, err := addPlugin(got); err != nil || !bytes.Equal(again, got) {
			t.Errorf("%s: once more: %v\n%s", tc.name, err, again)
		}
		if back, err := removePlugin(got); err != nil || string(back) != tc.before {
			t.Errorf("%s: taken out: %v\n%s", tc.name, err, back)
		}
	}
	for _, tc := range []struct{ name, before, after string }{
		{"not there", `{"plugins": [{"type": "bridge"}]}`, `{"plugins": [{"type": "bridge"}]}`},
		{"moved to the end", `{"plugins": [{"type": "bridge"}, {"type": "netfreeze-cni"}]}`, `{"plugins": [{"type": "bridge"}]}`},
		{"in the middle", `{"plugins": [{"type": "a"},{"type": "netfreeze-cni", "pods": ["x/y"]},{"type": "b"}]}`, `{"plugins": [{"type": "a"},{"type": "b"}]}`},
	} {
		if got, err := removePlugin([]byte(tc.before)); err != nil || string(got) != tc.after {
			t.Errorf("%s: %v\n%s", tc.name, err, got)
		}
	}
	for _, text := range []string{"", "{", "[]", `{"type": "bridge"}`, `{"plugins": {}}`, `{"plugins": [{"type": 1}]}`, `{"plugins": [1]}`} {
		for name, change := range map[string]func([]byte) ([]byte, error){"add": addPlugin, "remove": removePlugin} {
			if got, err := change([]byte(text)); err == nil || string(got) != text {
				t.Errorf("%s: %s gives %v, %s", name, text, err, got)
			}
		}
	}
	if _, err := addPlugin([]byte(`{"type": "bridge"}`)); !errors.Is(err, errNoList) || !strings.Contains(err.Error(), code.CNIList.String()) {
		t.Errorf("a single plugin: %v", err)
	}
}

// FuzzPlugin never panics, never touches what it cannot read, and takes back what it adds.
func FuzzPlugin(f *testing.F) {
	f.Add(`{"plugins": [{"type": "bridge"}, {"type": "netfreeze-cni"}]}`)
	f.Add(`{"plugins":[]}`)
	f.Fuzz(func(t *testing.T, text string) {
		added, err := addPlugin([]byte(text))
		if err != nil {
			if string(added) != text {
				t.Errorf("changed in spite of %v", err)
			}
			return
		}
		if strings.Contains(text, pluginType) {
			_, _ = removePlugin(added)
			return
		}
		if back, err := removePlugin(added); err != nil || string(back) != text {
			t.Errorf("%v: %q became %q", err, text, back)
		}
	})
}
