/* SHA-256 on 64-bit ARM: one to three lanes with the SHA2 instructions.
 *
 * Each of them waits for the one before, so that two streams take little longer than one.
 */
#ifndef FASTINDEX_SHA256_ARM_H
#define FASTINDEX_SHA256_ARM_H

#ifdef __clang__
#define WITH_SHA2 __attribute__((target("crypto")))
#ifndef __ARM_FEATURE_SHA2
#define __ARM_FEATURE_SHA2 1 /* else releases before 16 hide what such functions may use */
#endif
#else
#define WITH_SHA2 __attribute__((target("+crypto")))
#endif

#include <arm_neon.h>
#include <asm/hwcap.h>
#include <sys/auxv.h>

#include "_sha256.h"

#define NARROW_LANES 3
#define NARROW_KERNEL "ARM SHA2"
#define WIDE_LANES 0
#define WIDE_KERNEL ""

static bool
cpu_has_wide_kernel(void)
{
    return false;
}

/* Never called: no CPU has it. */
static void
compress_wide(int count, State *const *states, const uint8_t *const *data, size_t blocks)
{
    (void)count, (void)states, (void)data, (void)blocks;
}

static bool
cpu_has_narrow_kernel(void)
{
    return getauxval(AT_HWCAP) & HWCAP_SHA2;
}

/* Compress `blocks` blocks of each of `count` lanes; `count` is known at compile time. */
static inline __attribute__((always_inline)) WITH_SHA2 void
compress_lanes(const int count, State *const *states, const uint8_t *const *data, size_t blocks)
{
    uint32x4_t abcd[NARROW_LANES], efgh[NARROW_LANES], message[NARROW_LANES][4];
    UNROLLED
    for (int lane = 0; lane < count; lane++) {
        abcd[lane] = vld1q_u32(states[lane]->word);
        efgh[lane] = vld1q_u32(states[lane]->word + 4);
    }
    for (size_t offset = 0; offset < blocks * BLOCK; offset += BLOCK) {
        uint32x4_t abcd_before[NARROW_LANES], efgh_before[NARROW_LANES];
        UNROLLED
        for (int lane = 0; lane < count; lane++) {
            abcd_before[lane] = abcd[lane];
            efgh_before[lane] = efgh[lane];
        }
        UNROLLED
        for (int four = 0; four < 16; four++) { /* rounds 4 * four and the three after it */
            const uint32x4_t constants = vld1q_u32(CONSTANTS + 4 * four);
            UNROLLED
            for (int lane = 0; lane < count; lane++) {
                uint32x4_t *w = message[lane];
                if (four < 4) {
                    uint8x16_t bytes = vld1q_u8(data[lane] + offset + 16 * four);
                    w[four] = vreinterpretq_u32_u8(vrev32q_u8(bytes));
                } else {
                    uint32x4_t sum = vsha256su0q_u32(w[four & 3], w[(four + 1) & 3]);
                    w[four & 3] = vsha256su1q_u32(sum, w[(four + 2) & 3], w[(four + 3) & 3]);
                }
                const uint32x4_t next = vaddq_u32(w[four & 3], constants);
                const uint32x4_t abcd_now = abcd[lane];
                abcd[lane] = vsha256hq_u32(abcd_now, efgh[lane], next);
                efgh[lane] = vsha256h2q_u32(efgh[lane], abcd_now, next);
            }
        }
        UNROLLED
        for (int lane = 0; lane < count; lane++) {
            abcd[lane] = vaddq_u32(abcd[lane], abcd_before[lane]);
            efgh[lane] = vaddq_u32(efgh[lane], efgh_before[lane]);
        }
    }
    UNROLLED
    for (int lane = 0; lane < count; lane++) {
        vst1q_u32(states[lane]->word, abcd[lane]);
        vst1q_u32(states[lane]->word + 4, efgh[lane]);
    }
}

static WITH_SHA2 void
compress_narrow(int count, State *const *states, const uint8_t *const *data, size_t blocks)
{
    switch (count) {
    case 1: compress_lanes(1, states, data, blocks); break;
    case 2: compress_lanes(2, states, data, blocks); break;
    case 3: compress_lanes(3, states, data, blocks); break;
    }
}

#endif
