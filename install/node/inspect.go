// SPDX-License-Identifier: Apache-2.0

package node

// PluginType is our plugin's name in a CNI configuration list, and its program's.
const PluginType = pluginType

// Place returns where our plugin stands in a CNI configuration list, from 0, and -1 if
// it is not in it. The error says that the text is no such list.
func Place(list []byte) (int, error) {
	l, err := parseList(list)
	return l.ours, err
}
