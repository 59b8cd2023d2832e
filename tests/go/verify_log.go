// Command verify_log checks a holdfast log directory with nothing but Go's own transparency log packages.
//
//	verify_log DIR VKEY...
//
// It opens DIR/checkpoint and every note of the *.checkpoints files with the verifier keys, reads hashes through
// a tlog.TileHashReader over DIR/tile, and then, for every record, checks its inclusion, and for every older
// checkpoint, that the newest one continues it. It prints what it checked as one JSON object. Exit code 1: something
// does not hold; standard error says what.
package main

import (
	"bytes"
	"compress/gzip"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sort"
	"strconv"
	"strings"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
)

const height = 8

// tileFiles reads tiles from a directory that is laid out as C2SP tlog-tiles says.
type tileFiles struct{ directory string }

func (files tileFiles) Height() int { return height }

func (files tileFiles) ReadTiles(tiles []tlog.Tile) ([][]byte, error) {
	var content [][]byte
	for _, tile := range tiles {
		// Go puts the height into the path; C2SP fixes it at 8 and leaves it out.
		path := strings.Replace(tile.Path(), fmt.Sprintf("tile/%d/", height), "tile/", 1)
		data, err := os.ReadFile(filepath.Join(files.directory, path))
		if err != nil {
			return nil, err
		}
		content = append(content, data)
	}
	return content, nil
}

func (files tileFiles) SaveTiles([]tlog.Tile, [][]byte) {}

// parseCheckpoint reads the text of a C2SP checkpoint without extension lines.
func parseCheckpoint(text string) (origin string, tree tlog.Tree, err error) {
	lines := strings.Split(text, "\n")
	if len(lines) != 4 || lines[3] != "" {
		return "", tree, errors.New("checkpoint has not three lines")
	}
	if tree.N, err = strconv.ParseInt(lines[1], 10, 64); err != nil {
		return "", tree, err
	}
	root, err := base64.StdEncoding.DecodeString(lines[2])
	if err != nil {
		return "", tree, err
	}
	if len(root) != tlog.HashSize {
		return "", tree, errors.New("root has another length than a hash")
	}
	copy(tree.Hash[:], root)
	return lines[0], tree, nil
}

// readRecords returns every line of the log, in order of the segments' first sequence.
func readRecords(directory string) ([][]byte, error) {
	names, err := filepath.Glob(filepath.Join(directory, "audit_*.log*"))
	if err != nil {
		return nil, err
	}
	firstSequence := func(path string) string {
		parts := strings.Split(filepath.Base(path), "_")
		return parts[len(parts)-1][:12]
	}
	sort.Slice(names, func(i, j int) bool { return firstSequence(names[i]) < firstSequence(names[j]) })
	var records [][]byte
	for _, name := range names {
		content, err := os.ReadFile(name)
		if err != nil {
			return nil, err
		}
		if strings.HasSuffix(name, ".gz") {
			unpacked, err := gzip.NewReader(bytes.NewReader(content))
			if err != nil {
				return nil, err
			}
			if content, err = io.ReadAll(unpacked); err != nil {
				return nil, err
			}
		}
		content = bytes.TrimRight(content, "\n")
		if len(content) > 0 {
			records = append(records, bytes.Split(content, []byte("\n"))...)
		}
	}
	return records, nil
}

// olderCheckpoints returns the notes of every history, in the order of the files' names.
func olderCheckpoints(directory string) ([][]byte, error) {
	names, err := filepath.Glob(filepath.Join(directory, "*.checkpoints"))
	if err != nil {
		return nil, err
	}
	sort.Strings(names)
	var notes [][]byte
	for _, name := range names {
		content, err := os.ReadFile(name)
		if err != nil {
			return nil, err
		}
		// Three lines of text, an empty line, signatures, an empty line.
		parts := strings.Split(strings.TrimRight(string(content), "\n")+"\n", "\n\n")
		for at := 0; at+1 < len(parts); at += 2 {
			notes = append(notes, []byte(parts[at]+"\n\n"+strings.TrimRight(parts[at+1], "\n")+"\n"))
		}
	}
	return notes, nil
}

type report struct {
	Origin      string `json:"origin"`
	Size        int64  `json:"size"`
	Records     int    `json:"records"`
	Checkpoints int    `json:"checkpoints"`
	Signatures  int    `json:"signatures"`
}

func verify(directory string, vkeys []string) (*report, error) {
	var verifiers []note.Verifier
	for _, vkey := range vkeys {
		verifier, err := note.NewVerifier(vkey)
		if err != nil {
			return nil, err
		}
		verifiers = append(verifiers, verifier)
	}
	known := note.VerifierList(verifiers...)

	newest, err := os.ReadFile(filepath.Join(directory, "checkpoint"))
	if err != nil {
		return nil, err
	}
	opened, err := note.Open(newest, known)
	if err != nil {
		return nil, fmt.Errorf("checkpoint: %w", err)
	}
	origin, tree, err := parseCheckpoint(opened.Text)
	if err != nil {
		return nil, err
	}
	found := &report{Origin: origin, Size: tree.N, Signatures: len(opened.Sigs)}
	hashes := tlog.TileHashReader(tree, tileFiles{directory})

	records, err := readRecords(directory)
	if err != nil {
		return nil, err
	}
	if int64(len(records)) < tree.N {
		return nil, fmt.Errorf("%d records, but the checkpoint says %d", len(records), tree.N)
	}
	for index, record := range records[:tree.N] {
		proof, err := tlog.ProveRecord(tree.N, int64(index), hashes)
		if err != nil {
			return nil, fmt.Errorf("record %d: %w", index, err)
		}
		if err := tlog.CheckRecord(proof, tree.N, tree.Hash, int64(index), tlog.RecordHash(record)); err != nil {
			return nil, fmt.Errorf("record %d: %w", index, err)
		}
		found.Records++
	}

	notes, err := olderCheckpoints(directory)
	if err != nil {
		return nil, err
	}
	for _, data := range notes {
		opened, err := note.Open(data, known)
		if err != nil {
			return nil, fmt.Errorf("older checkpoint: %w", err)
		}
		olderOrigin, older, err := parseCheckpoint(opened.Text)
		if err != nil {
			return nil, err
		}
		if olderOrigin != origin {
			return nil, fmt.Errorf("a checkpoint of %q in the log of %q", olderOrigin, origin)
		}
		if older.N < 1 || older.N > tree.N {
			return nil, fmt.Errorf("a checkpoint of size %d in a log of size %d", older.N, tree.N)
		}
		proof, err := tlog.ProveTree(tree.N, older.N, hashes)
		if err != nil {
			return nil, fmt.Errorf("checkpoint of size %d: %w", older.N, err)
		}
		if err := tlog.CheckTree(proof, tree.N, tree.Hash, older.N, older.Hash); err != nil {
			return nil, fmt.Errorf("checkpoint of size %d: %w", older.N, err)
		}
		found.Checkpoints++
		found.Signatures += len(opened.Sigs)
	}
	return found, nil
}

func main() {
	if len(os.Args) < 3 {
		fmt.Fprintln(os.Stderr, "usage: verify_log DIR VKEY...")
		os.Exit(2)
	}
	found, err := verify(os.Args[1], os.Args[2:])
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	if err := json.NewEncoder(os.Stdout).Encode(found); err != nil {
		os.Exit(1)
	}
}
