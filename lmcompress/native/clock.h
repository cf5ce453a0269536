#ifndef LMC_CLOCK_H
#define LMC_CLOCK_H
#include <stdint.h>

int64_t lmc_now(void); /* nanoseconds of a clock that runs on (threads.c) */

#endif
