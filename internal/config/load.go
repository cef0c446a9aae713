// SPDX-License-Identifier: Apache-2.0

package config

import (
	"errors"
	"fmt"
	"io/fs"

	"github.com/criu-netfreeze/criu-netfreeze/internal/code"
	"github.com/criu-netfreeze/criu-netfreeze/internal/safefile"
)

// maxSize is the size of the largest file that Load reads, in bytes.
const maxSize = 1 << 20

// Load reads the configuration at path. If there is no such file, it returns
// [Default] without an error. Since root acts on what the file says, Load refuses
// it if it, or a directory on the way to it, is writable by anybody but root; a
// directory with the sticky bit, in which nobody else can replace root's files, is
// accepted. If the content is bad, the error is a [Problems].
func Load(path string) (*Config, error) { return load(path, 0) }

// load is Load for files that belong to uid.
func load(path string, uid uint32) (*Config, error) {
	data, err := safefile.ReadTrusted(path, uid, maxSize)
	if errors.Is(err, fs.ErrNotExist) {
		return Default(), nil
	}
	if err != nil {
		return nil, code.Wrap(code.Config, fmt.Errorf("load configuration: %w", err))
	}
	return Parse(data, path)
}
