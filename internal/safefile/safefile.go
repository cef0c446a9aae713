// Package safefile writes files that another process may read at the same time,
// or after a crash, and reads files whose content is done with root's rights.
package safefile

import (
	"fmt"
	"os"
	"path/filepath"
)

// Write puts a file with this content and mode at path in one step: whoever reads
// it sees the former content or all of the new one. The parts are written beside
// it, under a name of their own; nothing is left of them after an error.
func Write(path string, data []byte, mode os.FileMode) (err error) {
	f, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+".")
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			_ = os.Remove(f.Name())
		}
	}()
	_, err = f.Write(data)
	if err == nil {
		err = f.Chmod(mode)
	}
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	return nil
}
