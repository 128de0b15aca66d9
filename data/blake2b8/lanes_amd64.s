#include "textflag.h"

// Each register from Z0 to Z15 has one word of the working vector of all lanes, each
// from Z16 to Z31 one word of their blocks.

// G is the mixing function (RFC 7693, section 3.1).
#define G(a, b, c, d, x, y) \
	VPADDQ x, a, a; \
	VPADDQ b, a, a; \
	VPXORQ a, d, d; \
	VPRORQ $32, d, d; \
	VPADDQ d, c, c; \
	VPXORQ c, b, b; \
	VPRORQ $24, b, b; \
	VPADDQ y, a, a; \
	VPADDQ b, a, a; \
	VPXORQ a, d, d; \
	VPRORQ $16, d, d; \
	VPADDQ d, c, c; \
	VPXORQ c, b, b; \
	VPRORQ $63, b, b

// ROUND mixes columns, then diagonals, with the words of the blocks in their order.
#define ROUND(m0, m1, m2, m3, m4, m5, m6, m7, m8, m9, m10, m11, m12, m13, m14, m15) \
	G(Z0, Z4, Z8, Z12, m0, m1); \
	G(Z1, Z5, Z9, Z13, m2, m3); \
	G(Z2, Z6, Z10, Z14, m4, m5); \
	G(Z3, Z7, Z11, Z15, m6, m7); \
	G(Z0, Z5, Z10, Z15, m8, m9); \
	G(Z1, Z6, Z11, Z12, m10, m11); \
	G(Z2, Z7, Z8, Z13, m12, m13); \
	G(Z3, Z4, Z9, Z14, m14, m15)

// LOAD reads eight words of each lane's block, from an offset on, and turns rows,
// which are lanes, into columns, which are words: w0 has the first word of all lanes.
#define LOAD(offset, w0, w1, w2, w3, w4, w5, w6, w7) \
	VMOVDQU64 offset(R8), Z0; \
	VMOVDQU64 offset(R9), Z1; \
	VMOVDQU64 offset(R10), Z2; \
	VMOVDQU64 offset(R11), Z3; \
	VMOVDQU64 offset(R12), Z4; \
	VMOVDQU64 offset(R13), Z5; \
	VMOVDQU64 offset(AX), Z6; \
	VMOVDQU64 offset(SI), Z7; \
	VPUNPCKLQDQ Z1, Z0, Z8; \
	VPUNPCKHQDQ Z1, Z0, Z9; \
	VPUNPCKLQDQ Z3, Z2, Z10; \
	VPUNPCKHQDQ Z3, Z2, Z11; \
	VPUNPCKLQDQ Z5, Z4, Z12; \
	VPUNPCKHQDQ Z5, Z4, Z13; \
	VPUNPCKLQDQ Z7, Z6, Z14; \
	VPUNPCKHQDQ Z7, Z6, Z15; \
	VSHUFI64X2 $0x88, Z10, Z8, Z0; \
	VSHUFI64X2 $0xdd, Z10, Z8, Z1; \
	VSHUFI64X2 $0x88, Z14, Z12, Z2; \
	VSHUFI64X2 $0xdd, Z14, Z12, Z3; \
	VSHUFI64X2 $0x88, Z11, Z9, Z4; \
	VSHUFI64X2 $0xdd, Z11, Z9, Z5; \
	VSHUFI64X2 $0x88, Z15, Z13, Z6; \
	VSHUFI64X2 $0xdd, Z15, Z13, Z7; \
	VSHUFI64X2 $0x88, Z2, Z0, w0; \
	VSHUFI64X2 $0xdd, Z2, Z0, w4; \
	VSHUFI64X2 $0x88, Z3, Z1, w2; \
	VSHUFI64X2 $0xdd, Z3, Z1, w6; \
	VSHUFI64X2 $0x88, Z6, Z4, w1; \
	VSHUFI64X2 $0xdd, Z6, Z4, w5; \
	VSHUFI64X2 $0x88, Z7, Z5, w3; \
	VSHUFI64X2 $0xdd, Z7, Z5, w7

// NEXT changes a word of the state by two of the working vector.
#define NEXT(offset, v, w) \
	VPXORQ w, v, v; \
	VPXORQ offset(DI), v, v; \
	VMOVDQU64 v, offset(DI)

// func compress(s *state, data *[lanes]*byte, blocks, hashed, last uint64)
TEXT ·compress(SB), NOSPLIT, $0-40
	MOVQ s+0(FP), DI
	MOVQ data+8(FP), SI
	MOVQ blocks+16(FP), CX
	MOVQ hashed+24(FP), DX
	MOVQ last+32(FP), BX
	MOVQ 0(SI), R8
	MOVQ 8(SI), R9
	MOVQ 16(SI), R10
	MOVQ 24(SI), R11
	MOVQ 32(SI), R12
	MOVQ 40(SI), R13
	MOVQ 48(SI), AX
	MOVQ 56(SI), SI

block:
	LOAD(0, Z16, Z17, Z18, Z19, Z20, Z21, Z22, Z23)
	LOAD(64, Z24, Z25, Z26, Z27, Z28, Z29, Z30, Z31)
	VMOVDQU64 0(DI), Z0
	VMOVDQU64 64(DI), Z1
	VMOVDQU64 128(DI), Z2
	VMOVDQU64 192(DI), Z3
	VMOVDQU64 256(DI), Z4
	VMOVDQU64 320(DI), Z5
	VMOVDQU64 384(DI), Z6
	VMOVDQU64 448(DI), Z7
	VPBROADCASTQ ·iv+0(SB), Z8
	VPBROADCASTQ ·iv+8(SB), Z9
	VPBROADCASTQ ·iv+16(SB), Z10
	VPBROADCASTQ ·iv+24(SB), Z11
	MOVQ ·iv+32(SB), R15
	XORQ DX, R15
	VPBROADCASTQ R15, Z12
	VPBROADCASTQ ·iv+40(SB), Z13
	MOVQ ·iv+48(SB), R15
	XORQ BX, R15
	VPBROADCASTQ R15, Z14
	VPBROADCASTQ ·iv+56(SB), Z15

	ROUND(Z16, Z17, Z18, Z19, Z20, Z21, Z22, Z23, Z24, Z25, Z26, Z27, Z28, Z29, Z30, Z31)
	ROUND(Z30, Z26, Z20, Z24, Z25, Z31, Z29, Z22, Z17, Z28, Z16, Z18, Z27, Z23, Z21, Z19)
	ROUND(Z27, Z24, Z28, Z16, Z21, Z18, Z31, Z29, Z26, Z30, Z19, Z22, Z23, Z17, Z25, Z20)
	ROUND(Z23, Z25, Z19, Z17, Z29, Z28, Z27, Z30, Z18, Z22, Z21, Z26, Z20, Z16, Z31, Z24)
	ROUND(Z25, Z16, Z21, Z23, Z18, Z20, Z26, Z31, Z30, Z17, Z27, Z28, Z22, Z24, Z19, Z29)
	ROUND(Z18, Z28, Z22, Z26, Z16, Z27, Z24, Z19, Z20, Z29, Z23, Z21, Z31, Z30, Z17, Z25)
	ROUND(Z28, Z21, Z17, Z31, Z30, Z29, Z20, Z26, Z16, Z23, Z22, Z19, Z25, Z18, Z24, Z27)
	ROUND(Z29, Z27, Z23, Z30, Z28, Z17, Z19, Z25, Z21, Z16, Z31, Z20, Z24, Z22, Z18, Z26)
	ROUND(Z22, Z31, Z30, Z25, Z27, Z19, Z16, Z24, Z28, Z18, Z29, Z23, Z17, Z20, Z26, Z21)
	ROUND(Z26, Z18, Z24, Z20, Z23, Z22, Z17, Z21, Z31, Z27, Z25, Z30, Z19, Z28, Z29, Z16)
	ROUND(Z16, Z17, Z18, Z19, Z20, Z21, Z22, Z23, Z24, Z25, Z26, Z27, Z28, Z29, Z30, Z31)
	ROUND(Z30, Z26, Z20, Z24, Z25, Z31, Z29, Z22, Z17, Z28, Z16, Z18, Z27, Z23, Z21, Z19)

	NEXT(0, Z0, Z8)
	NEXT(64, Z1, Z9)
	NEXT(128, Z2, Z10)
	NEXT(192, Z3, Z11)
	NEXT(256, Z4, Z12)
	NEXT(320, Z5, Z13)
	NEXT(384, Z6, Z14)
	NEXT(448, Z7, Z15)

	ADDQ $128, R8
	ADDQ $128, R9
	ADDQ $128, R10
	ADDQ $128, R11
	ADDQ $128, R12
	ADDQ $128, R13
	ADDQ $128, AX
	ADDQ $128, SI
	ADDQ $128, DX
	DECQ CX
	JNZ block

	VZEROUPPER
	RET
