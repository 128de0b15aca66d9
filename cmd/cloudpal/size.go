package main

import (
	"fmt"
	"math"
	"strconv"
	"strings"
)

// size is a number of bytes on the command line: "256M", "1.5G", "4096". K, M,
// G and T are powers of 1024, with or without B or iB behind.
type size int64

func (s *size) Set(text string) error {
	n, err := parseSize(text)
	if err == nil {
		*s = size(n)
	}
	return err
}

func (s *size) String() string {
	if *s == 0 {
		return ""
	}
	return formatSize(int64(*s))
}

func (*size) Type() string { return "SIZE" }

func parseSize(text string) (int64, error) {
	digits := strings.TrimRight(text, "KMGTBkmgtbi ")
	shift, ok := shifts[strings.ToLower(strings.TrimSpace(text[len(digits):]))]
	n, err := strconv.ParseFloat(digits, 64)
	if !ok || err != nil || !isDecimal(digits) {
		return 0, fmt.Errorf("%.40q is no size; write it as 256M or 8G", text)
	}
	if n *= float64(int64(1) << shift); n >= math.MaxInt64 {
		return 0, fmt.Errorf("%.40q is too large", text)
	}
	return int64(n), nil
}

var shifts = map[string]uint{
	"": 0, "b": 0,
	"k": 10, "kb": 10, "kib": 10,
	"m": 20, "mb": 20, "mib": 20,
	"g": 30, "gb": 30, "gib": 30,
	"t": 40, "tb": 40, "tib": 40,
}

// isDecimal keeps out what ParseFloat takes beyond plain numbers: signs, 1e9,
// 0x10, inf.
func isDecimal(s string) bool {
	return s != "" && strings.Trim(s, "0123456789.") == "" && len(s) <= 20
}

// formatSize writes bytes as people say them: "128 MiB", "1.5 GiB".
func formatSize(n int64) string {
	units := []string{"B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"}
	v, i := float64(n), 0
	for ; v >= 1023.95 && i < len(units)-1; i++ {
		v /= 1024
	}
	digits := strconv.FormatFloat(v, 'f', 1, 64)
	if i == 0 || v >= 99.95 {
		digits = strconv.FormatFloat(v, 'f', 0, 64)
	}
	return strings.TrimSuffix(digits, ".0") + " " + units[i]
}
