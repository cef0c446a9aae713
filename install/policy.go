package install

import (
	"bytes"
	"fmt"
	"strings"

	"github.com/criu-netfreeze/criu-netfreeze/internal/config"
)

// wasPrefix keeps, within the block, the policy line that the block replaces.
const wasPrefix = "# was: "

// policyLine is what SetPolicy writes.
func policyLine(p config.Policy) string { return fmt.Sprintf("policy = %q\n", p) }

// policyEnd is the end marker of the policy's block. It names the policy, so
// that a change made since can be told.
func policyEnd(p config.Policy) string { return endMarker + ": " + string(p) }

// SetPolicy returns the content of a netfreeze.toml with this policy as the
// general one. The line stands between markers and keeps the line it replaces,
// so that [UnsetPolicy] can give it back. A content that has the policy already
// is returned as it is. The name stands for the file in messages. The error
// says that the content is no valid configuration or that somebody edited the
// block, or is a [MarkerError].
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
	// The search for the line is no TOML parser: let one decide.
	got, err := config.Parse(out, name)
	if err != nil || got.TOML() != wanted.TOML() {
		return nil, fmt.Errorf("%s: cannot find the line that sets the policy: write %s into it by hand", name, strings.TrimSpace(policyLine(p)))
	}
	return out, nil
}

// UnsetPolicy takes back what [SetPolicy] did. It reports false, and returns
// the content as it is, where the block was changed since or there is none.
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

// policyPlace returns the bytes that the policy's block takes: the line that
// sets the policy, or nothing, after the comment that shows the default or at
// the top of the file. Only what stands before the first table counts.
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
