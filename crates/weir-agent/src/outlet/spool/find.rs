//! What is in the directory of a spool that is opened: looks at the head of every frame, and at no records.

use std::{
    fs::{self, File},
    io,
};

use super::{
    Opened, Place, Segment, Spool, Unread, position,
    segment::{self, FileHead, Found},
};

impl Spool {
    /// Looks through the files.
    pub(super) fn find(&mut self) -> io::Result<Opened> {
        let mut numbers = Vec::new();
        for entry in fs::read_dir(&self.config.path)? {
            numbers.extend(entry?.file_name().to_str().and_then(segment::number_of));
        }
        numbers.sort_unstable();
        let known = position::read(&self.position)?;
        let mut opened = Opened::default();
        for number in numbers {
            self.next_number = number + 1;
            let path = segment::path(&self.config.path, number);
            let file = File::open(&path)?;
            let Some(head) = segment::read_file_head(&file)? else {
                // A death may leave a file that was just begun. What has something in it is not thrown away: a later
                // version may know what it is.
                if file.metadata()?.len() == 0 {
                    fs::remove_file(&path)?;
                } else {
                    let aside = segment::path_aside(&path);
                    fs::rename(&path, &aside)?;
                    let text = format!("{} makes no sense and is now {}", path.display(), aside.display());
                    opened.damaged.push(text);
                }
                continue;
            };
            if known.is_some_and(|(id, _)| id == head.id) {
                // What is older than the file that the sink has got to was delivered, and could not be removed.
                for older in std::mem::take(&mut self.segments) {
                    self.remove(older.number);
                }
                opened.earlier = Unread::default();
            }
            let from = known.filter(|(id, _)| *id == head.id).map_or(0, |(_, offset)| offset);
            let (segment, place) = self.scan(number, head, &file, from, &mut opened)?;
            opened.earlier.add(&segment.unread);
            if segment.unread.frames == 0 {
                fs::remove_file(&path)?;
                continue;
            }
            if self.segments.is_empty() {
                self.cursor = place;
            }
            self.segments.push_back(segment);
        }
        if self.segments.is_empty() {
            self.cursor = Place { segment: self.next_number, ..Place::default() };
        }
        Ok(opened)
    }

    /// Walks over the frames of a file; those before `from` have been delivered.
    fn scan(
        &self,
        number: u64,
        head: FileHead,
        file: &File,
        from: u64,
        opened: &mut Opened,
    ) -> io::Result<(Segment, Place)> {
        let length = file.metadata()?.len();
        let is_earlier = head.run != self.run;
        let mut segment = Segment {
            number,
            first_unread: head.length,
            length: head.length,
            head,
            is_earlier,
            frames: 0,
            gaps: Vec::new(),
            unread: Unread::default(),
        };
        let mut first = None;
        let mut offset = segment.length;
        loop {
            let found = segment::read_frame_head(file, offset, length)?;
            if let Found::Frame(frame) = found {
                if offset >= from {
                    first.get_or_insert(offset);
                    segment.unread.insert(&frame.tallies, frame.records, frame.end() - offset);
                }
                segment.frames += 1;
                (offset, segment.length) = (frame.end(), frame.end());
                continue;
            }
            // Also what looks like a torn end may be a damaged length.
            let next = segment::find_frame(file, offset + 1, length)?;
            if next.is_some() || found == Found::Nonsense {
                let lost = next.unwrap_or(length) - offset;
                let path = segment::path(&self.config.path, number);
                let text = format!("{} at {offset}: {lost} bytes make no sense", path.display());
                opened.damaged.push(text);
            }
            let Some(next) = next else { break };
            segment.gaps.push((offset, next));
            offset = next;
        }
        let offset = first.unwrap_or(segment.length);
        segment.first_unread = offset;
        Ok((segment, Place { segment: number, offset }))
    }
}
