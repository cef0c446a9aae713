// SPDX-License-Identifier: Apache-2.0

package main

import (
	"crypto/sha1" //nolint:gosec // SPDX asks for it beside SHA-256
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"regexp"
	"strings"
	"time"
)

// document is an SPDX document, version 2.3, as JSON, with the fields that are used here
// (https://spdx.github.io/spdx-spec/v2.3/).
type document struct {
	SPDXVersion   string         `json:"spdxVersion"`
	DataLicense   string         `json:"dataLicense"`
	SPDXID        string         `json:"SPDXID"`
	Name          string         `json:"name"`
	Namespace     string         `json:"documentNamespace"`
	CreationInfo  creation       `json:"creationInfo"`
	Packages      []spdxPackage  `json:"packages"`
	Files         []spdxFile     `json:"files"`
	Relationships []relationship `json:"relationships"`
}

type creation struct {
	Created  string   `json:"created"`
	Creators []string `json:"creators"`
}

type spdxPackage struct {
	SPDXID           string        `json:"SPDXID"`
	Name             string        `json:"name"`
	Version          string        `json:"versionInfo"`
	DownloadLocation string        `json:"downloadLocation"`
	FilesAnalyzed    bool          `json:"filesAnalyzed"`
	LicenseConcluded string        `json:"licenseConcluded"`
	LicenseDeclared  string        `json:"licenseDeclared"`
	CopyrightText    string        `json:"copyrightText"`
	Comment          string        `json:"comment,omitempty"`
	ExternalRefs     []externalRef `json:"externalRefs"`
}

type externalRef struct {
	Category string `json:"referenceCategory"`
	Type     string `json:"referenceType"`
	Locator  string `json:"referenceLocator"`
}

type spdxFile struct {
	SPDXID           string     `json:"SPDXID"`
	Name             string     `json:"fileName"`
	Types            []string   `json:"fileTypes"`
	Checksums        []checksum `json:"checksums"`
	LicenseConcluded string     `json:"licenseConcluded"`
	CopyrightText    string     `json:"copyrightText"`
}

type checksum struct {
	Algorithm string `json:"algorithm"`
	Value     string `json:"checksumValue"`
}

type relationship struct {
	Element string `json:"spdxElementId"`
	Type    string `json:"relationshipType"`
	Related string `json:"relatedSpdxElement"`
}

const (
	documentID = "SPDXRef-DOCUMENT"
	noAssert   = "NOASSERTION"
)

// writeSBOM prints what the programs of a package are linked with. Each is given as
// FILE=PATH, where PATH is where the package has it.
func writeSBOM(w io.Writer, p pkg, programs []string) error {
	var files, paths []string
	for _, arg := range programs {
		file, path, ok := strings.Cut(arg, "=")
		if !ok {
			return fmt.Errorf("%q is not FILE=PATH", arg)
		}
		files, paths = append(files, file), append(paths, path)
	}
	modules, err := union(files)
	if err != nil {
		return err
	}
	self := spdxPackage{
		SPDXID: ref("Package", project), Name: project, Version: p.Version,
		DownloadLocation: "git+" + homepage, LicenseConcluded: "Apache-2.0", LicenseDeclared: "Apache-2.0",
		CopyrightText: "the authors of " + project,
		ExternalRefs:  []externalRef{purl("pkg:golang/" + module)},
	}
	d := document{
		SPDXVersion: "SPDX-2.3", DataLicense: "CC0-1.0", SPDXID: documentID, Name: project + "-" + p.Version,
		CreationInfo:  creation{Created: p.Time.Format(time.RFC3339), Creators: []string{"Organization: " + project, "Tool: " + project + "-gen"}},
		Packages:      []spdxPackage{self},
		Relationships: []relationship{{documentID, "DESCRIBES", self.SPDXID}},
	}
	for _, m := range modules {
		d.Packages = append(d.Packages, modulePackage(m))
		d.Relationships = append(d.Relationships, relationship{self.SPDXID, "DEPENDS_ON", ref("Package", m.Path)})
	}
	all := sha256.New()
	for i, file := range files {
		f, err := describeFile(file, paths[i])
		if err != nil {
			return err
		}
		d.Files = append(d.Files, f)
		d.Relationships = append(d.Relationships, relationship{self.SPDXID, "CONTAINS", f.SPDXID})
		of, err := linkedInto(file)
		if err != nil {
			return err
		}
		for _, m := range of {
			d.Relationships = append(d.Relationships, relationship{f.SPDXID, "STATIC_LINK", ref("Package", m.Path)})
		}
		fmt.Fprintln(all, f.Name, f.Checksums)
	}
	// The namespace is unique to what the document describes, and says nothing else.
	d.Namespace = fmt.Sprintf("%s/spdx/%s-%s-%x", homepage, project, p.Version, all.Sum(nil)[:16])
	e := json.NewEncoder(w)
	e.SetEscapeHTML(false)
	e.SetIndent("", "  ")
	return e.Encode(d)
}

// modulePackage describes a module. Its sum is Go's own kind of hash, which SPDX has no
// algorithm for, and so is a comment.
func modulePackage(m linked) spdxPackage {
	p := spdxPackage{
		SPDXID: ref("Package", m.Path), Name: m.Path, Version: m.Version,
		DownloadLocation: noAssert, // wherever GOPROXY says; go.sum and the purl tell what it is
		LicenseConcluded: noAssert, LicenseDeclared: m.Licence.SPDX, CopyrightText: noAssert,
		ExternalRefs: []externalRef{purl(fmt.Sprintf("pkg:golang/%s@%s", m.Path, m.Version))},
	}
	if m.Sum != "" {
		p.Comment = "go.sum: " + m.Sum
	}
	if m.Path == standard {
		p.Comment = "Go's own library, of the Go that built the programs"
	}
	if m.Licence.Copyrights != "" {
		p.CopyrightText = "Copyright " + strings.ReplaceAll(m.Licence.Copyrights, "\n", "\nCopyright ")
	}
	return p
}

// describeFile describes a program.
func describeFile(file, path string) (spdxFile, error) {
	data, err := os.ReadFile(file)
	if err != nil {
		return spdxFile{}, err
	}
	old, sum := sha1.Sum(data), sha256.Sum256(data) //nolint:gosec // SPDX asks for it beside SHA-256
	return spdxFile{
		SPDXID: ref("File", path), Name: "." + path, Types: []string{"BINARY"},
		Checksums:        []checksum{{"SHA1", hex.EncodeToString(old[:])}, {"SHA256", hex.EncodeToString(sum[:])}},
		LicenseConcluded: noAssert, CopyrightText: noAssert,
	}, nil
}

func purl(locator string) externalRef { return externalRef{"PACKAGE-MANAGER", "purl", locator} }

// notInRef is what an identifier of SPDX may not contain.
var notInRef = regexp.MustCompile(`[^A-Za-z0-9.-]+`)

func ref(kind, name string) string {
	return "SPDXRef-" + kind + "-" + strings.Trim(notInRef.ReplaceAllString(name, "-"), "-")
}
