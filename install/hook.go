// SPDX-License-Identifier: Apache-2.0

package install

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/criu-netfreeze/criu-netfreeze/internal/code"
	"github.com/criu-netfreeze/criu-netfreeze/internal/safefile"
)

// LibexecDir is where the scripts are installed. The build may set another one:
// -ldflags '-X github.com/criu-netfreeze/criu-netfreeze/install.LibexecDir=…'.
var LibexecDir = "/usr/local/libexec/criu-netfreeze"

// hookName is the name of the script that handles all actions.
const hookName = "netfreeze-hook"

// DefaultHook returns the path of netfreeze-hook: of the one that was installed
// together with the running executable (in libexec beside its bin) if there is one,
// and otherwise of the one in [LibexecDir]. Within another root it is always the
// latter.
func DefaultHook(root string) string {
	built := filepath.Join(LibexecDir, hookName)
	if root != "" && root != "/" {
		return built
	}
	exe, err := os.Executable()
	if err != nil {
		return built
	}
	if exe, err = filepath.EvalSymlinks(exe); err != nil {
		return built
	}
	sibling := filepath.Join(filepath.Dir(exe), "..", "libexec", "criu-netfreeze", hookName)
	if _, err := os.Stat(sibling); err != nil {
		return built
	}
	return sibling
}

// checkScript refuses a script that CRIU could not execute, or that others than
// root could change: CRIU executes it as root. In another root the owner and the
// mode are not checked, since files there may belong to the user who builds an image.
func checkScript(root, path string) error {
	target, err := resolve(root, path)
	if err != nil {
		return fmt.Errorf("action-script: %w", err)
	}
	info, err := os.Stat(target)
	if err != nil {
		return code.Wrap(code.InstallPath, fmt.Errorf("action-script: %w: install the suite first (make install), or name the script with --hook", err))
	}
	if !info.Mode().IsRegular() || info.Mode().Perm()&0o111 == 0 {
		return code.New(code.InstallPath, fmt.Sprintf("action-script %s is not an executable file", path))
	}
	if root != "/" {
		return nil
	}
	if _, err = safefile.ResolveTrusted(path, 0); err == nil {
		err = safefile.CheckTrusted(target, info, 0)
	}
	if err != nil {
		return fmt.Errorf("action-script %s: %w", path, ownerMessage(err))
	}
	return nil
}

// ownerMessage replaces the message about a file that does not belong to root.
func ownerMessage(err error) error {
	var owner *safefile.OwnerError
	if errors.As(err, &owner) {
		return code.New(code.InstallPath, fmt.Sprintf("%s does not belong to root: chown root %[1]s", owner.Path))
	}
	return err
}
