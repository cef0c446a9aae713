// SPDX-License-Identifier: Apache-2.0

// Package node installs criu-netfreeze on a node of a cluster, from a container that has
// the node's root directory mounted, and takes all of it back: the programs, the lines in
// CRIU's configuration files, and the plugin in CNI's. It is what the DaemonSet runs.
//
// Installing and removing may be broken off at any moment, and be repeated: what calls our
// programs is put in place last and taken out first, so that nothing ever names a program
// that is not there.
package node

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/criu-netfreeze/criu-netfreeze/install"
	"github.com/criu-netfreeze/criu-netfreeze/internal/safefile"
)

// Node is where things are.
type Node struct {
	// Root is where the node's root directory is mounted.
	Root string
	// Prefix is where the programs are: in the container as on the node, since they know
	// each other by their paths. Nothing else is in it.
	Prefix string
	// CNIBin and CNIConf are the node's directories of CNI plugins, and of their
	// configuration lists; "" leaves CNI alone.
	CNIBin, CNIConf string
	// Options are those of netfreeze install. Root and Hook are set here.
	Options install.Options
}

// ownConfig is the configuration file that is made if there is none.
const ownConfig = "/etc/criu/netfreeze.toml"

func (n *Node) on(path string) string { return filepath.Join(n.Root, path) }

// options are those for the node.
func (n *Node) options() install.Options {
	o := n.Options
	o.Root, o.Hook = n.Root, filepath.Join(n.Prefix, "libexec/criu-netfreeze/netfreeze-hook")
	return o
}

// Install puts everything in place that is not there yet, or is of another version, and
// says what it changes.
func (n *Node) Install(say func(format string, args ...any)) error {
	if err := n.copyPrograms(say); err != nil {
		return err
	}
	if _, err := os.Lstat(n.on(ownConfig)); errors.Is(err, fs.ErrNotExist) {
		if err := write(n.on(ownConfig), install.DefaultConfig, 0o644); err != nil {
			return err
		}
		say("made %s", ownConfig)
	}
	p, err := install.PlanInstall(n.options())
	if err != nil {
		return fmt.Errorf("edit CRIU's configuration: %w", err)
	}
	if err := apply(p, say); err != nil {
		return err
	}
	return n.eachList(say, addPlugin)
}

// Remove takes everything back. While inForce returns an error, because something is
// frozen or held that only these programs can undo, they stay, and nothing calls them any
// more.
func (n *Node) Remove(inForce func() error, say func(format string, args ...any)) error {
	if err := n.eachList(say, removePlugin); err != nil {
		return err
	}
	o := n.options()
	o.Runtimes = install.Runtimes()
	p, err := install.PlanUninstall(o)
	if err != nil {
		return fmt.Errorf("edit CRIU's configuration: %w", err)
	}
	if err := apply(p, say); err != nil {
		return err
	}
	if err := inForce(); err != nil {
		return fmt.Errorf("the programs stay in %s of the node: %w", n.Prefix, err)
	}
	if own, err := os.ReadFile(n.on(ownConfig)); err == nil && string(own) == string(install.DefaultConfig) {
		if err := os.Remove(n.on(ownConfig)); err != nil {
			return err
		}
		say("removed %s", ownConfig)
	}
	return n.removePrograms(say)
}

// apply carries out a change of CRIU's configuration files.
func apply(p *install.Plan, say func(format string, args ...any)) error {
	if err := p.Apply(); err != nil {
		return fmt.Errorf("edit CRIU's configuration: %w", err)
	}
	for _, c := range p.Changes {
		if c.Diff() != "" {
			say("%s: %s", c.Path, c.Action())
		}
	}
	for _, w := range p.Warnings {
		say("warning: %s", w)
	}
	return nil
}

// programs calls do for every file below Prefix, links included, and our CNI plugin, with
// where it is in the container and on the node.
func (n *Node) programs(do func(from, to string, info fs.FileInfo) error) error {
	err := filepath.WalkDir(n.Prefix, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		to := n.on(path)
		if d.Name() == pluginType {
			if n.CNIBin == "" {
				return nil
			}
			to = n.on(filepath.Join(n.CNIBin, pluginType))
		}
		return do(path, to, info)
	})
	if err != nil {
		return fmt.Errorf("the programs in %s: %w", n.Prefix, err)
	}
	return nil
}

func (n *Node) copyPrograms(say func(format string, args ...any)) error {
	return n.programs(func(from, to string, info fs.FileInfo) error {
		if info.Mode()&fs.ModeSymlink != 0 {
			return copyLink(from, to)
		}
		content, err := os.ReadFile(from)
		if err != nil {
			return err
		}
		if now, err := os.ReadFile(to); err == nil && string(now) == string(content) {
			return nil
		}
		if err := write(to, content, info.Mode().Perm()); err != nil {
			return err
		}
		say("installed %s", strings.TrimPrefix(to, n.Root))
		return nil
	})
}

// copyLink makes the same symbolic link.
func copyLink(from, to string) error {
	target, err := os.Readlink(from)
	if err != nil {
		return err
	}
	if now, err := os.Readlink(to); err == nil && now == target {
		return nil
	}
	if err := os.Remove(to); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return os.Symlink(target, to)
}

// write replaces a file in one step, and makes its directory if need be: a program may be
// running from the former one.
func write(path string, content []byte, mode fs.FileMode) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	return safefile.Write(path, content, mode)
}

func (n *Node) removePrograms(say func(format string, args ...any)) error {
	err := n.programs(func(_, to string, _ fs.FileInfo) error {
		err := os.Remove(to)
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err == nil {
			say("removed %s", strings.TrimPrefix(to, n.Root))
		}
		return err
	})
	if err != nil {
		return err
	}
	if err := os.RemoveAll(n.on(n.Prefix)); err != nil { // its empty directories
		return err
	}
	return nil
}

// eachList changes every configuration list of CNI on the node.
func (n *Node) eachList(say func(format string, args ...any), change func([]byte) ([]byte, error)) error {
	if n.CNIConf == "" {
		return nil
	}
	lists, err := filepath.Glob(n.on(filepath.Join(n.CNIConf, "*.conflist")))
	if err != nil {
		return err
	}
	for _, path := range lists {
		before, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		after, err := change(before)
		name := strings.TrimPrefix(path, n.Root)
		if err != nil {
			say("warning: %s stays as it is: %v", name, err)
			continue
		}
		if string(after) == string(before) {
			continue
		}
		staged, err := safefile.Stage(path, after, 0o644)
		if err == nil {
			err = staged.Commit()
		}
		if err != nil {
			return fmt.Errorf("change %s: %w", name, err)
		}
		say("changed %s", name)
	}
	return nil
}
