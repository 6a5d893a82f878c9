/** As package.json contributes them. */
export const vendor = 'hearth';
export const participantId = 'hearth.participant';
