// SPDX-License-Identifier: Apache-2.0

package doctor

import (
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/criu-netfreeze/criu-netfreeze/install/node"
)

// Where CNI's programs and lists are unless an engine's configuration says otherwise:
// the specification's own, and those of Debian and Fedora.
var (
	cniBinDirs  = []string{"/opt/cni/bin", "/usr/lib/cni", "/usr/libexec/cni"}
	cniConfDirs = []string{"/etc/cni/net.d"}
)

// checkCNI looks whether our plugin is in every list, is the first one there, and has a
// program. Without it pods cannot be frozen at their birth.
func checkCNI(h *Host) (found []Finding) {
	bins, dirs := slices.Clone(cniBinDirs), slices.Clone(cniConfDirs)
	for _, e := range h.engines() {
		bins, dirs = append(bins, e.cniBin...), append(dirs, e.cniConf...)
	}
	program := slices.IndexFunc(bins, func(dir string) bool { return executable(h.on(filepath.Join(dir, node.PluginType))) })
	slices.Sort(dirs)
	for _, dir := range slices.Compact(dirs) {
		lists, _ := filepath.Glob(h.on(filepath.Join(dir, "*.conflist"))) // the only error is a bad pattern
		for _, list := range lists {
			found = append(found, checkList(filepath.Join(dir, filepath.Base(list)), list, program >= 0))
		}
	}
	if len(found) == 0 {
		return []Finding{note("CNI", "", "there are no configuration lists: pods are not set up by CNI here")}
	}
	return found
}

func checkList(name, path string, installed bool) Finding {
	text, err := os.ReadFile(path)
	if err != nil {
		return warn(name, "mend the file", "%v", err)
	}
	place, err := node.Place(text)
	switch {
	case err != nil:
		return warn(name, "mend the file", "it cannot be read as a configuration list: %v", err)
	case place < 0:
		remedy := `put {"type": "netfreeze-cni", "capabilities": {"ips": true}} first in its plugins`
		if !installed {
			remedy = "make install, then " + remedy
		}
		return warn(name, remedy, "netfreeze-cni is not in it: pods cannot be frozen at their birth, so peers of a restored one may get RST")
	case !installed:
		return fails(name, "make install (CNIBINDIR names the directory), or take the plugin out", "it names netfreeze-cni, which is not in %s: no pod can be set up", strings.Join(cniBinDirs, ", "))
	case place > 0:
		return warn(name, "move netfreeze-cni to the first place", "netfreeze-cni is number %d of its plugins: the pod has its address before it is frozen", place+1)
	}
	return ok(name, "netfreeze-cni is its first plugin")
}
