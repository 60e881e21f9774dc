/* SHA-256 on x86-64: one to four lanes with the SHA extensions, sixteen with AVX-512.
 *
 * One stream leaves the CPU's SHA unit half idle, because each round waits for the one before.
 * The rounds of independent streams fill the gaps: two streams take little longer than one.
 *
 * AVX-512 has no instructions for SHA-256, but computes each step for sixteen streams at once.
 * That takes the same time however few of them are busy.
 */
#ifndef FASTINDEX_SHA256_X86_H
#define FASTINDEX_SHA256_X86_H

#include <cpuid.h>
#include <immintrin.h>

#include "_sha256.h"

#define NARROW_LANES 4
#define NARROW_KERNEL "SHA-NI"
#define WIDE_LANES 16
#define WIDE_KERNEL "AVX-512"

static bool
cpu_has_narrow_kernel(void)
{
    unsigned eax, ebx, ecx, edx;
    if (!__get_cpuid(1, &eax, &ebx, &ecx, &edx))
        return false;
    bool has_ssse3 = ecx & (1u << 9), has_sse41 = ecx & (1u << 19);
    if (!__get_cpuid_count(7, 0, &eax, &ebx, &ecx, &edx))
        return false;
    return has_ssse3 && has_sse41 && (ebx & (1u << 29));
}

/* The CPU must have AVX512F and AVX512BW, and the system must keep all of its registers. */
static bool
cpu_has_wide_kernel(void)
{
    unsigned eax, ebx, ecx, edx, low, high;
    if (!__get_cpuid(1, &eax, &ebx, &ecx, &edx) || !(ecx & (1u << 27))) /* OSXSAVE */
        return false;
    __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
    if ((low & 0xe6) != 0xe6 || !__get_cpuid_count(7, 0, &eax, &ebx, &ecx, &edx))
        return false;
    return (ebx & (1u << 16)) && (ebx & (1u << 30));
}

/* --- Narrow ---------------------------------------------------------------------------- */

#define WITH_SHA __attribute__((target("sha,sse4.1,ssse3")))

/* Compress `blocks` blocks of each of `count` lanes; `count` is known at compile time.
 *
 * The SHA instructions need the words as ABEF and CDGH. The lanes take turns of four rounds,
 * which is close enough for the CPU to overlap them.
 */
static inline __attribute__((always_inline)) WITH_SHA void
compress_lanes(const int count, State *const *states, const uint8_t *const *data, size_t blocks)
{
    const __m128i to_big_endian = _mm_set_epi64x(0x0c0d0e0f08090a0bLL, 0x0405060700010203LL);
    __m128i abef[NARROW_LANES], cdgh[NARROW_LANES], message[NARROW_LANES][4];
    UNROLLED
    for (int lane = 0; lane < count; lane++) {
        const __m128i *words = (const __m128i *)states[lane]->word;
        __m128i cdab = _mm_shuffle_epi32(_mm_loadu_si128(words), 0xb1);
        __m128i efgh = _mm_shuffle_epi32(_mm_loadu_si128(words + 1), 0x1b);
        abef[lane] = _mm_alignr_epi8(cdab, efgh, 8);
        cdgh[lane] = _mm_blend_epi16(efgh, cdab, 0xf0);
    }
    for (size_t offset = 0; offset < blocks * BLOCK; offset += BLOCK) {
        __m128i abef_before[NARROW_LANES], cdgh_before[NARROW_LANES];
        UNROLLED
        for (int lane = 0; lane < count; lane++) {
            abef_before[lane] = abef[lane];
            cdgh_before[lane] = cdgh[lane];
        }
        UNROLLED
        for (int four = 0; four < 16; four++) { /* rounds 4 * four and the three after it */
            UNROLLED
            for (int lane = 0; lane < count; lane++) {
                __m128i *w = message[lane], next;
                if (four < 4) {
                    const uint8_t *from = data[lane] + offset + 16 * four;
                    next = _mm_loadu_si128((const __m128i *)from);
                    next = _mm_shuffle_epi8(next, to_big_endian);
                } else {
                    const __m128i last = w[(four + 3) & 3];
                    next = _mm_sha256msg1_epu32(w[four & 3], w[(four + 1) & 3]);
                    next = _mm_add_epi32(next, _mm_alignr_epi8(last, w[(four + 2) & 3], 4));
                    next = _mm_sha256msg2_epu32(next, last);
                }
                w[four & 3] = next;
                /* Four lanes need 28 registers, and there are 16. The message can be kept in
                 * memory; without this hint the compiler moves the states there too. */
                if (count == 4)
                    __asm__("" : "+m"(w[four & 3]));
                next = _mm_add_epi32(next, _mm_load_si128((const __m128i *)CONSTANTS + four));
                cdgh[lane] = _mm_sha256rnds2_epu32(cdgh[lane], abef[lane], next);
                next = _mm_shuffle_epi32(next, 0x0e);
                abef[lane] = _mm_sha256rnds2_epu32(abef[lane], cdgh[lane], next);
            }
        }
        UNROLLED
        for (int lane = 0; lane < count; lane++) {
            abef[lane] = _mm_add_epi32(abef[lane], abef_before[lane]);
            cdgh[lane] = _mm_add_epi32(cdgh[lane], cdgh_before[lane]);
        }
    }
    UNROLLED
    for (int lane = 0; lane < count; lane++) {
        __m128i *words = (__m128i *)states[lane]->word;
        __m128i feba = _mm_shuffle_epi32(abef[lane], 0x1b);
        __m128i dchg = _mm_shuffle_epi32(cdgh[lane], 0xb1);
        _mm_storeu_si128(words, _mm_blend_epi16(feba, dchg, 0xf0));
        _mm_storeu_si128(words + 1, _mm_alignr_epi8(dchg, feba, 8));
    }
}

static WITH_SHA void
compress_narrow(int count, State *const *states, const uint8_t *const *data, size_t blocks)
{
    switch (count) {
    case 1: compress_lanes(1, states, data, blocks); break;
    case 2: compress_lanes(2, states, data, blocks); break;
    case 3: compress_lanes(3, states, data, blocks); break;
    case 4: compress_lanes(4, states, data, blocks); break;
    }
}

/* --- Wide ------------------------------------------------------------------------------ */

#define WITH_AVX512 __attribute__((target("avx512f,avx512bw")))
#define INLINED static inline __attribute__((always_inline)) WITH_AVX512
/* The compiler reorders sums of vectors as it likes, which makes the chain that each round
 * waits for longer: a third of the speed. This pins a sum. */
#define PINNED(sum) __asm__("" : "+v"(sum))
#define ADD _mm512_add_epi32
#define XOR(a, b, c) _mm512_ternarylogic_epi32(a, b, c, 0x96)
#define ROTATE _mm512_ror_epi32

/* Load a block of each lane: message[i] is the word i of all of them. */
INLINED void
load_wide(__m512i message[16], const uint8_t *const *data, size_t offset)
{
    const __m512i to_big_endian = _mm512_broadcast_i32x4(
        _mm_set_epi64x(0x0c0d0e0f08090a0bLL, 0x0405060700010203LL));
    __m512i row[16], pair[16];
    UNROLLED
    for (int lane = 0; lane < 16; lane++) {
        row[lane] = _mm512_loadu_si512(data[lane] + offset);
        row[lane] = _mm512_shuffle_epi8(row[lane], to_big_endian);
    }
    /* Transpose: single words, pairs of words, then quarters. */
    UNROLLED
    for (int i = 0; i < 16; i += 2) {
        pair[i] = _mm512_unpacklo_epi32(row[i], row[i + 1]);
        pair[i + 1] = _mm512_unpackhi_epi32(row[i], row[i + 1]);
    }
    UNROLLED
    for (int i = 0; i < 16; i += 4) {
        UNROLLED
        for (int j = 0; j < 2; j++) {
            row[i + 2 * j] = _mm512_unpacklo_epi64(pair[i + j], pair[i + j + 2]);
            row[i + 2 * j + 1] = _mm512_unpackhi_epi64(pair[i + j], pair[i + j + 2]);
        }
    }
    UNROLLED
    for (int i = 0; i < 4; i++) {
        __m512i low_first = _mm512_shuffle_i32x4(row[i], row[i + 4], 0x44);
        __m512i high_first = _mm512_shuffle_i32x4(row[i], row[i + 4], 0xee);
        __m512i low_last = _mm512_shuffle_i32x4(row[i + 8], row[i + 12], 0x44);
        __m512i high_last = _mm512_shuffle_i32x4(row[i + 8], row[i + 12], 0xee);
        message[i] = _mm512_shuffle_i32x4(low_first, low_last, 0x88);
        message[i + 4] = _mm512_shuffle_i32x4(low_first, low_last, 0xdd);
        message[i + 8] = _mm512_shuffle_i32x4(high_first, high_last, 0x88);
        message[i + 12] = _mm512_shuffle_i32x4(high_first, high_last, 0xdd);
    }
}

/* Replace the message's word for `round` by that for sixteen rounds later. */
INLINED void
extend_wide(__m512i message[16], int round)
{
    __m512i *word = &message[round & 15];
    const __m512i second = message[(round + 1) & 15], last = message[(round + 14) & 15];
    __m512i sigma0 = XOR(ROTATE(second, 7), ROTATE(second, 18), _mm512_srli_epi32(second, 3));
    __m512i sigma1 = XOR(ROTATE(last, 17), ROTATE(last, 19), _mm512_srli_epi32(last, 10));
    __m512i sum = ADD(ADD(*word, message[(round + 9) & 15]), sigma0);
    PINNED(sum);
    *word = ADD(sum, sigma1);
}

/* One round. Instead of the words of the state, their names move: a is state[-round & 7]. */
INLINED void
round_wide(__m512i state[8], int round, __m512i message_word, const uint32_t *constants)
{
    const __m512i a = state[-round & 7], b = state[(1 - round) & 7], c = state[(2 - round) & 7];
    const __m512i e = state[(4 - round) & 7], f = state[(5 - round) & 7];
    const __m512i g = state[(6 - round) & 7];
    __m512i *d = &state[(3 - round) & 7], *h = &state[(7 - round) & 7];
    __m512i known = ADD(message_word, _mm512_set1_epi32((int)constants[round]));
    PINNED(known);
    known = ADD(known, *h);
    PINNED(known);
    /* The next round waits for the new e. It gets a sum of its own, so that few additions
     * come after the slow sigma1. */
    __m512i known_d = ADD(known, *d);
    PINNED(known_d);
    const __m512i choice = _mm512_ternarylogic_epi32(e, f, g, 0xca);
    __m512i sum_d = ADD(known_d, choice), sum = ADD(known, choice);
    PINNED(sum_d);
    PINNED(sum);
    const __m512i sigma1 = XOR(ROTATE(e, 6), ROTATE(e, 11), ROTATE(e, 25));
    *d = ADD(sum_d, sigma1);
    sum = ADD(sum, sigma1);
    PINNED(sum);
    const __m512i majority = _mm512_ternarylogic_epi32(a, b, c, 0xe8);
    __m512i other = ADD(XOR(ROTATE(a, 2), ROTATE(a, 13), ROTATE(a, 22)), majority);
    PINNED(other);
    *h = ADD(sum, other);
}

/* Compress `blocks` blocks of each of up to 16 lanes. Idle lanes repeat the first one. */
static WITH_AVX512 void
compress_wide(int count, State *const *states, const uint8_t *const *data, size_t blocks)
{
    uint32_t words[8][WIDE_LANES] __attribute__((aligned(64)));
    const uint8_t *from[WIDE_LANES];
    for (int lane = 0; lane < WIDE_LANES; lane++) {
        const int busy = lane < count ? lane : 0;
        from[lane] = data[busy];
        for (int i = 0; i < 8; i++)
            words[i][lane] = states[busy]->word[i];
    }
    const uint32_t *constants = CONSTANTS;
    __asm__("" : "+r"(constants)); /* else their vectors, which are many, are kept in memory */
    __m512i state[8], message[16];
    UNROLLED
    for (int i = 0; i < 8; i++)
        state[i] = _mm512_load_si512(words[i]);
    for (size_t offset = 0; offset < blocks * BLOCK; offset += BLOCK) {
        load_wide(message, from, offset);
        UNROLLED
        for (int round = 0; round < 64; round++) {
            round_wide(state, round, message[round & 15], constants);
            if (round < 48)
                extend_wide(message, round);
        }
        UNROLLED
        for (int i = 0; i < 8; i++) {
            state[i] = ADD(state[i], _mm512_load_si512(words[i]));
            _mm512_store_si512(words[i], state[i]);
        }
    }
    for (int lane = 0; lane < count; lane++)
        for (int i = 0; i < 8; i++)
            states[lane]->word[i] = words[i][lane];
}

#endif
