// SPDX-License-Identifier: Apache-2.0

package node

import (
	"bytes"
	"encoding/json"
	"fmt"

	"github.com/criu-netfreeze/criu-netfreeze/internal/code"
)

// pluginType is our plugin's name in a CNI configuration list, and its program's.
const pluginType = "netfreeze-cni"

// entry is our plugin's entry. The runtime passes the addresses it asks for.
const entry = `{"type": "` + pluginType + `", "capabilities": {"ips": true}}`

// addPlugin makes our plugin the first of a CNI configuration list. Where it is in the
// list already, nothing is changed. Everything else stays as it is, byte for byte.
func addPlugin(list []byte) ([]byte, error) {
	l, err := parseList(list)
	if err != nil || l.ours >= 0 {
		return list, err
	}
	insert := entry
	if len(l.plugins) > 0 {
		insert += ", "
	}
	return concat(list[:l.open], []byte(insert), list[l.open:]), nil
}

// removePlugin takes our plugin's entry out of a CNI configuration list again. A list
// that nobody has edited since is what it was before addPlugin.
func removePlugin(list []byte) ([]byte, error) {
	l, err := parseList(list)
	if err != nil || l.ours < 0 {
		return list, err
	}
	from, to := l.plugins[l.ours].from, l.plugins[l.ours].to
	switch {
	case l.ours+1 < len(l.plugins): // with the comma, and the blank that addPlugin puts
		comma := to + int64(bytes.IndexByte(list[to:], ','))
		to = comma + 1
		if list[to] == ' ' {
			to++
		}
	case l.ours > 0: // somebody has moved it to the end
		from = l.plugins[l.ours-1].to
	}
	return concat(list[:from], list[to:]), nil
}

func concat(parts ...[]byte) []byte { return bytes.Join(parts, nil) }

// pluginList is where the parts of a configuration list are, as offsets in bytes.
type pluginList struct {
	open    int64 // after the bracket that opens the list
	plugins []span
	ours    int // index of our plugin, -1 if it is not there
}

type span struct{ from, to int64 }

// errNoList means that a file is no configuration list, such as one for a single plugin.
var errNoList = code.New(code.CNIList, `it has no list of "plugins"`)

// parseList finds the list of plugins in a CNI configuration list.
func parseList(list []byte) (pluginList, error) {
	l := pluginList{ours: -1}
	if !json.Valid(list) {
		return l, code.New(code.CNIList, "it is not JSON")
	}
	d := json.NewDecoder(bytes.NewReader(list))
	if t, err := d.Token(); err != nil || t != json.Delim('{') {
		return l, errNoList
	}
	for d.More() {
		key, err := d.Token()
		if err != nil {
			return l, err
		}
		if key != "plugins" {
			if err := d.Decode(new(json.RawMessage)); err != nil {
				return l, err
			}
			continue
		}
		if t, err := d.Token(); err != nil || t != json.Delim('[') {
			return l, errNoList
		}
		l.open = d.InputOffset()
		return l, l.read(d)
	}
	return l, errNoList
}

// read reads the plugins after the bracket.
func (l *pluginList) read(d *json.Decoder) error {
	for d.More() {
		var raw json.RawMessage
		if err := d.Decode(&raw); err != nil {
			return err
		}
		var plugin struct {
			Type string `json:"type"`
		}
		if err := json.Unmarshal(raw, &plugin); err != nil {
			return code.Wrap(code.CNIList, fmt.Errorf("plugin %d: %w", len(l.plugins)+1, err))
		}
		if plugin.Type == pluginType && l.ours < 0 {
			l.ours = len(l.plugins)
		}
		to := d.InputOffset()
		l.plugins = append(l.plugins, span{to - int64(len(raw)), to})
	}
	return nil
}
