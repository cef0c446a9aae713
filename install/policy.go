// SPDX-License-Identifier: Apache-2.0

package install

import (
	"bytes"
	"fmt"
	"strings"

	"github.com/criu-netfreeze/criu-netfreeze/internal/code"
	"github.com/criu-netfreeze/criu-netfreeze/internal/config"
)

// wasPrefix precedes, within the block, the policy line that the block replaces.
const wasPrefix = "# was: "

// policyLine returns the line that SetPolicy writes.
func policyLine(p config.Policy) string { return fmt.Sprintf("policy = %q\n", p) }

// policyEnd returns the end marker of the policy's block. It names the policy, so
// that a later change can be recognized.
func policyEnd(p config.Policy) string { return endMarker + ": " + string(p) }

// SetPolicy returns the content of a netfreeze.toml with this policy as the general
// one. The new line stands between markers together with the line that it replaces,
// so that [UnsetPolicy] can restore that. If the content has the policy already, it
// is returned unchanged. name is the file's name in messages. The error says that
// the content is not a valid configuration or that somebody has edited the block,
// or is a [MarkerError].
func SetPolicy(content []byte, p config.Policy, origin Origin, name string) ([]byte, error) {
	wanted, err := config.Parse(content, name)
	if err != nil {
		return nil, err
	}
	if wanted.Policy == p {
		return content, nil
	}
	wanted.Policy = p
	old, err := findBlock(content)
	if err != nil {
		return nil, err
	}
	if old.found {
		origin = origin.or(old.origin)
		undone := false
		if content, undone, err = UnsetPolicy(content); err != nil {
			return nil, err
		}
		if !undone {
			return nil, &MarkerError{old.line, fmt.Sprintf("the block was edited: write %s into it by hand", strings.TrimSpace(policyLine(p)))}
		}
	}
	start, end, replaces := policyPlace(content)
	var b strings.Builder
	b.WriteString(beginLine(origin) + "\n")
	last := policyEnd(p) + "\n"
	if replaces {
		was := string(content[start:end])
		if !strings.HasSuffix(was, "\n") { // the last line of its file
			was, last = was+"\n", policyEnd(p)
		}
		b.WriteString(wasPrefix + was)
	}
	b.WriteString(policyLine(p) + last)
	out := append(bytes.Clone(content[:start]), b.String()...)
	out = append(out, content[end:]...)
	// policyPlace is not a TOML parser, so check its work with one.
	got, err := config.Parse(out, name)
	if err != nil || got.TOML() != wanted.TOML() {
		return nil, code.New(code.Config, fmt.Sprintf("%s: cannot find the line that sets the policy: write %s into it by hand", name, strings.TrimSpace(policyLine(p))))
	}
	return out, nil
}

// UnsetPolicy undoes what [SetPolicy] did. If there is no block, or it was changed
// since, it returns the content unchanged, and false. The error is a [MarkerError].
func UnsetPolicy(content []byte) ([]byte, bool, error) {
	b, err := findBlock(content)
	if err != nil || !b.found {
		return content, false, err
	}
	lines, was := b.lines, ""
	if len(lines) == 2 && strings.HasPrefix(lines[0], wasPrefix) {
		was = strings.TrimPrefix(lines[0], wasPrefix)
		if !strings.HasSuffix(b.endLine, "\n") {
			was = strings.TrimSuffix(was, "\n")
		}
		lines = lines[1:]
	}
	written := config.Policy(strings.TrimPrefix(strings.TrimSuffix(b.endLine, "\n"), policyEnd("")))
	if len(lines) != 1 || lines[0] != policyLine(written) {
		return content, false, nil
	}
	out := append(bytes.Clone(content[:b.start]), was...)
	return append(out, content[b.end:]...), true, nil
}

// policyPlace returns which bytes the policy's block is to replace: the line that
// sets the policy, or none, after the comment that shows the default or at the top
// of the file. It looks only at what precedes the first table.
func policyPlace(content []byte) (start, end int, replaces bool) {
	at := 0
	for line := range strings.Lines(string(content)) {
		next := at + len(line)
		key, _, _ := strings.Cut(line, "=")
		switch strings.Trim(key, " \t\"'") {
		case "policy":
			return at, next, true
		case "#policy":
			if strings.HasSuffix(line, "\n") {
				start, end = next, next
			}
		}
		if strings.HasPrefix(strings.TrimLeft(line, " \t"), "[") {
			break
		}
		at = next
	}
	return start, end, false
}
