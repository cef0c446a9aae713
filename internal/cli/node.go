// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"errors"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/criu-netfreeze/criu-netfreeze/install"
	"github.com/criu-netfreeze/criu-netfreeze/install/node"
	"github.com/criu-netfreeze/criu-netfreeze/internal/code"
	"github.com/criu-netfreeze/criu-netfreeze/internal/config"
)

// newNodeCmd makes netfreeze node, which the DaemonSet runs.
func newNodeCmd() *cobra.Command {
	var (
		n            node.Node
		policy       string
		remove, once bool
		every        time.Duration
	)
	cmd := &cobra.Command{
		Use:   "node",
		Short: "Install on a cluster's node from a container, and take all back at the end",
		Long: `Install criu-netfreeze on the node whose root directory is mounted at --root: the
programs, the lines in CRIU's configuration files, and the plugin at the head of
CNI's configuration lists. What is missing is put back every so often, since network
add-ons write their lists anew. At SIGTERM all of it is taken back; while something is
frozen or held the programs stay, since only they can undo that.

It is what the container of the DaemonSet in install/kubernetes runs.`,
		Example: `  netfreeze node --root /host --runtime crun,runc --manage-cgroups ignore
  netfreeze node --root /host --remove`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			var err error
			if policy != "" {
				if n.Options.StopAfterDump, err = config.ParsePolicy(policy); err != nil {
					return code.Wrap(code.Usage, fmt.Errorf("--stop-after-dump: %w", err))
				}
			}
			if n.Options.NetworkLock == criusLock {
				n.Options.NetworkLock = ""
			}
			if err := errors.Join(needRoot(), otherRoot(n.Root)); err != nil {
				return err
			}
			say := func(format string, args ...any) {
				_, _ = fmt.Fprintf(cmd.OutOrStdout(), format+"\n", args...)
			}
			if remove {
				return n.Remove(nothingInForce, say)
			}
			end := make(chan os.Signal, 1)
			signal.Notify(end, syscall.SIGTERM, syscall.SIGINT)
			if err := n.Install(say); err != nil || once {
				return err
			}
			say("installed; SIGTERM takes all of it back")
			for {
				select {
				case <-end:
					return n.Remove(nothingInForce, say)
				case <-time.After(every):
					if err := n.Install(say); err != nil {
						say("error: %v", err) // the next time, perhaps
					}
				}
			}
		},
	}
	f := cmd.Flags()
	f.StringVar(&n.Root, "root", "/host", "where the node's root directory is mounted")
	f.StringVar(&n.Prefix, "prefix", filepath.Dir(filepath.Dir(install.LibexecDir)), "where the programs are, here and on the node")
	f.StringVar(&n.CNIBin, "cni-bin", "/opt/cni/bin", "the node's directory of CNI plugins")
	f.StringVar(&n.CNIConf, "cni-conf", "/etc/cni/net.d", "the node's directory of CNI configuration lists; empty leaves CNI alone")
	f.StringSliceVar(&n.Options.Runtimes, "runtime", install.DefaultRuntimes(), "whose files to edit, some of "+strings.Join(install.Runtimes(), ","))
	f.StringVar(&policy, "stop-after-dump", "", "the policy to write into "+config.Path)
	f.StringVar(&n.Options.NetworkLock, "network-lock", "skip", "CRIU's own lock, as of netfreeze install")
	f.StringVar(&n.Options.ManageCgroups, "manage-cgroups", "", "how CRIU treats cgroups, as of netfreeze install")
	f.BoolVar(&remove, "remove", false, "take all back, and end")
	f.BoolVar(&once, "once", false, "install, and end")
	f.DurationVar(&every, "every", 30*time.Second, "how often what is missing is put back")
	return cmd
}

// otherRoot refuses this container's own root directory.
func otherRoot(root string) error {
	there, err := os.Stat(root)
	if err != nil {
		return fmt.Errorf("the node's root directory: %w (mount it there, or name it by --root)", err)
	}
	if own, err := os.Stat("/"); err != nil || os.SameFile(own, there) {
		return code.New(code.Usage, fmt.Sprintf("%s is this container's own root directory: mount the node's, and name it by --root", root))
	}
	return nil
}
