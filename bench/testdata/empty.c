// SPDX-License-Identifier: Apache-2.0
/* The minimum that a script costs: start and end of a static program. */
int main(void) { return 0; }
