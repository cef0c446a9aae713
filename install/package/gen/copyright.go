// SPDX-License-Identifier: Apache-2.0

package main

import (
	"cmp"
	"fmt"
	"io"
	"strings"
)

// writeCopyright prints Debian's copyright file, in version 1.0 of its machine-readable
// format. It covers what is linked into the programs as well, since the licences of that
// ask to be passed on.
func writeCopyright(w io.Writer, programs []string) error {
	modules, err := union(programs)
	if err != nil {
		return err
	}
	var b strings.Builder
	fmt.Fprintf(&b, `Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/
Upstream-Name: %s
Source: %s
Comment: The programs are linked with the Go modules that are listed here below
 vendor/, the directory into which "go mod vendor" would put their sources, and
 with Go's own library.

Files: *
Copyright: the authors of %[1]s
License: Apache-2.0
`, project, homepage)
	for _, m := range modules {
		fmt.Fprintf(&b, "\nFiles: vendor/%s/*\nCopyright:%sLicense: %s\n", m.Path,
			indent(cmp.Or(m.Licence.Copyrights, "the authors of "+m.Path)), m.Licence.Debian)
		if m.Licence.Debian != "Apache-2.0" { // whose text is the same for all
			b.WriteString(indent(m.Licence.Text)[1:])
		}
		if m.Notice != "" {
			b.WriteString("Comment:" + indent("The module's NOTICE file says:\n\n"+m.Notice))
		}
	}
	b.WriteString(apache)
	text := blankLines(b.String())
	_, err = io.WriteString(w, text)
	return err
}

// apache stands for the licence's text, which Debian has in one place.
const apache = `
License: Apache-2.0
 Licensed under the Apache License, Version 2.0 (the "License"); you may not use
 this file except in compliance with the License. You may obtain a copy of the
 License at
 .
     http://www.apache.org/licenses/LICENSE-2.0
 .
 Unless required by applicable law or agreed to in writing, software distributed
 under the License is distributed on an "AS IS" BASIS, WITHOUT WARRANTIES OR
 CONDITIONS OF ANY KIND, either express or implied. See the License for the
 specific language governing permissions and limitations under the License.
 .
 On Debian systems the complete text is in /usr/share/common-licenses/Apache-2.0.
`

// indent makes a text the continuation of a field: a space before each line, a dot for
// an empty one. It begins with a newline and ends with one.
func indent(text string) string {
	var b strings.Builder
	b.WriteByte('\n')
	for line := range strings.Lines(strings.Trim(text, "\n")) {
		line = strings.TrimRight(strings.ReplaceAll(line, "\t", "    "), " \r\n")
		if line == "" {
			line = "."
		}
		b.WriteString(" " + line + "\n")
	}
	return b.String()
}

// blankLines leaves one empty line between paragraphs, where fields end with a newline.
func blankLines(text string) string {
	for strings.Contains(text, "\n\n\n") {
		text = strings.ReplaceAll(text, "\n\n\n", "\n\n")
	}
	return text
}
