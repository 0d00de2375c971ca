/* Products of floats are rounded before they are added, as TFLM's are: no fused multiply-add.
 *
 * For what follows in a file, so it is the first that is included. Compilers fuse where the core
 * can, unless told not to (gcc without -std=c11, as in Arduino; it knows no STDC FP_CONTRACT). */
#ifndef EC_EXACT_H
#define EC_EXACT_H

#if !defined(__GNUC__) || defined(__clang__)
#pragma STDC FP_CONTRACT OFF
#elif defined(__FP_FAST_FMAF)
#pragma GCC optimize("fp-contract=off")
#endif

#endif
