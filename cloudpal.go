// CloudPal is a personal cloud: a computer in a data center that belongs to
// one person the way a phone does.
// Copyright (C) 2026 The CloudPal authors.
//
// This program is free software: you can redistribute it and/or modify it
// under the terms of the GNU General Public License as published by the Free
// Software Foundation, either version 3 of the License, or (at your option)
// any later version. It comes WITHOUT ANY WARRANTY; see the file LICENSE.

// Package cloudpal holds what every part of CloudPal shares: the one way to
// fail. It imports nothing but the standard library, and everything may import
// it.
package cloudpal
