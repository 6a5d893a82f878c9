/** Git's index, of which only the paths are read (gitformat-index(5)). */

const signature = 'DIRC';
const headerBytes = 12;
/** Of an entry, before the object's digest: times, device, inode, mode, owner, size. */
const statBytes = 40;
const nameLengthMask = 0xfff;
const extendedFlag = 0x4000;

/** The paths of all entries; none where it is no index of versions 2 to 4, and those before the damage where it is damaged. */
export function trackedPaths(index: Buffer, digestBytes: number): Set<string> {
  const paths = new Set<string>();
  if (index.length < headerBytes || index.toString('latin1', 0, 4) !== signature) return paths;
  const version = index.readUInt32BE(4);
  if (version < 2 || version > 4) return paths;
  const count = index.readUInt32BE(8);
  let at = headerBytes;
  let previous: Buffer = Buffer.alloc(0);
  for (let entry = 0; entry < count; entry++) {
    const start = at;
    const flagsAt = start + statBytes + digestBytes;
    if (flagsAt + 2 > index.length) break;
    const flags = index.readUInt16BE(flagsAt);
    at = flagsAt + ((flags & extendedFlag) === 0 ? 2 : 4);
    let kept = 0;
    if (version === 4) [kept, at] = keptBytes(index, at, previous.length);
    const end = index.indexOf(
      0,
      version < 4 && (flags & nameLengthMask) < nameLengthMask ? at + (flags & nameLengthMask) : at,
    );
    if (end < 0) break;
    const name = Buffer.concat([previous.subarray(0, kept), index.subarray(at, end)]);
    paths.add(name.toString('utf8'));
    previous = name;
    // Before version 4 an entry is filled up with zeros to a multiple of eight bytes.
    at = version === 4 ? end + 1 : start + (Math.floor((end - start) / 8) + 1) * 8;
  }
  return paths;
}

/** How much of the last path an entry of version 4 keeps, and where its own part begins. */
function keptBytes(index: Buffer, at: number, previous: number): [kept: number, at: number] {
  // A number of variable width as in packs, where each further byte adds one (varint.c).
  let byte = index[at++] ?? 0;
  let dropped = byte & 0x7f;
  while ((byte & 0x80) !== 0 && at < index.length) {
    byte = index[at++] ?? 0;
    dropped = ((dropped + 1) << 7) | (byte & 0x7f);
  }
  return [Math.max(0, previous - dropped), at];
}
