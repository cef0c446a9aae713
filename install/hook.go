package install

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
)

// LibexecDir is where the scripts are installed. The build may set another one:
// -ldflags '-X github.com/criu-netfreeze/criu-netfreeze/install.LibexecDir=…'.
var LibexecDir = "/usr/local/libexec/criu-netfreeze"

// hookName is the script that does all actions.
const hookName = "netfreeze-hook"

// DefaultHook returns the path of netfreeze-hook: the one that was installed
// together with the running executable (bin beside libexec), else the one in
// [LibexecDir]. Within another root it is always the latter.
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

// checkScript refuses a script that CRIU could not run, or that others than
// root could change: CRIU runs it as root. Files in another root may belong to
// whoever builds an image there; of those the owner is not checked.
func checkScript(root, path string) error {
	target, err := resolve(root, path)
	if err != nil {
		return fmt.Errorf("action-script: %w", err)
	}
	info, err := os.Stat(target)
	if err != nil {
		return fmt.Errorf("action-script: %w: install the suite first (make install), or name the script with --hook", err)
	}
	if !info.Mode().IsRegular() || info.Mode().Perm()&0o111 == 0 {
		return fmt.Errorf("action-script %s is not an executable file", path)
	}
	if root != "/" {
		return nil
	}
	for p := target; ; p = filepath.Dir(p) {
		info, err := os.Lstat(p)
		if err != nil {
			return fmt.Errorf("action-script: %w", err)
		}
		if err := rootOnly(p, info); err != nil {
			return fmt.Errorf("action-script %s: %w", path, err)
		}
		if p == "/" {
			return nil
		}
	}
}

// rootOnly refuses what others than root can write. In a directory with the
// sticky bit nobody else can replace root's files.
func rootOnly(path string, info fs.FileInfo) error {
	if st, ok := info.Sys().(*syscall.Stat_t); !ok || st.Uid != 0 {
		return fmt.Errorf("%s does not belong to root: chown root %s", path, path)
	}
	if info.Mode().Perm()&0o022 != 0 && !(info.IsDir() && info.Mode()&fs.ModeSticky != 0) {
		return fmt.Errorf("%s can be written by others than root (mode %04o): chmod go-w %s", path, info.Mode().Perm(), path)
	}
	return nil
}
