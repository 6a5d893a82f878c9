/**
 * Every cap on what comes from outside, with its reason. A cap is far above what published models need and
 * far below what would hurt the machine.
 */
export const limits = {
  // Each group is used by the folder it is named after.
} as const;
