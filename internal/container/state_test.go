// SPDX-License-Identifier: Apache-2.0

package container

import (
	"strings"
	"testing"
)

func TestReadState(t *testing.T) {
	c, pid, err := ReadState(strings.NewReader(`{"ociVersion": "1.0.2", "id": "abc", "status": "creating", "pid": 4711, "bundle": "/b",
		"annotations": {"io.kubernetes.cri.sandbox-namespace": "shop", "io.kubernetes.cri.sandbox-name": "db-0"}}`))
	if err != nil || pid != 4711 || c.ID != "abc" || c.Bundle != "/b" || c.Pod != "shop/db-0" {
		t.Errorf("got %+v, %d, %v", c, pid, err)
	}
	for _, bad := range []string{"", "[]", "{}", `{"id": "a"}`, `{"id": "a", "pid": -1}`, `{"pid": 1}`, `{"id": "a", "pid": "1"}`} {
		if c, _, err := ReadState(strings.NewReader(bad)); err == nil {
			t.Errorf("%s: got %+v", bad, c)
		}
	}
}

func FuzzReadState(f *testing.F) {
	f.Add(`{"id": "a", "pid": 1, "annotations": {"a": "b"}}`)
	f.Fuzz(func(t *testing.T, st string) {
		c, pid, err := ReadState(strings.NewReader(st))
		if (err == nil) != (c != nil && c.ID != "" && pid > 0) {
			t.Errorf("%q: got %+v, %d, %v", st, c, pid, err)
		}
	})
}
