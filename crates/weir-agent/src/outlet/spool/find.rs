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
                // What a death left of a file that was just begun has no frames.
                if file.metadata()?.len() > 0 {
                    opened.damaged.push(path.display().to_string());
                }
                fs::remove_file(&path)?;
                continue;
            };
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
        let mut segment =
            Segment { number, length: head.length, head, is_earlier, frames: 0, unread: Unread::default() };
        let mut first = None;
        loop {
            match segment::read_frame_head(file, segment.length, length)? {
                Found::Frame(frame) => {
                    if segment.length >= from {
                        first.get_or_insert((segment.frames, segment.length));
                        segment.unread.insert(&frame.tallies, frame.records, frame.end() - segment.length);
                    }
                    segment.frames += 1;
                    segment.length = frame.end();
                }
                Found::End => break,
                Found::Nonsense => {
                    let path = segment::path(&self.config.path, number);
                    let rest = length - segment.length;
                    opened.damaged.push(format!(
                        "{} at {}: {rest} bytes make no sense",
                        path.display(),
                        segment.length
                    ));
                    break;
                }
            }
        }
        let (index, offset) = first.unwrap_or((segment.frames, segment.length));
        Ok((segment, Place { segment: number, index, offset }))
    }
}
