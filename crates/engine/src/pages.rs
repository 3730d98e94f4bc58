//! The allocator of pages. Pages are counted references; a full page whose tokens are known outlives its owners until
//! the room is needed.

use std::collections::{BTreeMap, HashMap};

use minke_model::MlaForm;
use minke_tensor::PAGE_TOKENS;

/// The tokens from the beginning of a sequence to the end of a full page, in a cache of one MLA form.
///
/// A number that the allocator gives once and never again. So two prefixes are equal exactly if their numbers are: no
/// prompt can be made to hit the pages of another, as it could if long prefixes were named by their hashes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Prefix(u64);

/// A full page: what stands before it, and its tokens.
type Key = (Prefix, [u32; PAGE_TOKENS]);

#[derive(Clone, Default)]
struct Page {
    references: u32,
    /// Its key in the prefix cache.
    key: Option<Key>,
    /// When its last owner released it; orders `reusable`.
    released: u64,
}

/// Hands out pages, counts their owners, and finds pages by the tokens they hold.
pub(crate) struct PageAllocator {
    pages: Vec<Page>,
    /// Pages without an owner and without known contents.
    free: Vec<u32>,
    /// Pages without an owner whose contents are known, the longest unused first.
    reusable: BTreeMap<u64, u32>,
    /// Only looked up, never walked: nothing depends on the order of a hash map.
    known: HashMap<Key, (u32, Prefix)>,
    /// The prefixes without tokens, by the tenants' numbers. Number 0 has the prefix that stands for the form.
    roots: BTreeMap<u64, Prefix>,
    /// Counts releases and prefixes.
    clock: u64,
    prefix_cache: bool,
}

impl PageAllocator {
    pub(crate) fn new(count: usize, form: MlaForm, prefix_cache: bool) -> Self {
        Self {
            pages: vec![Page::default(); count],
            free: (0..count as u32).rev().collect(),
            reusable: BTreeMap::new(),
            known: HashMap::new(),
            roots: BTreeMap::from([(
                0,
                Prefix(match form {
                    MlaForm::Expanded => 0,
                    MlaForm::Absorbed => 1,
                }),
            )]),
            clock: 2,
            prefix_cache,
        }
    }

    /// The prefix without tokens for tenants of this number ([`Tenant::prefixes`](crate::Tenant::prefixes)). It is part
    /// of every prefix: what was computed for one number is not found under another.
    pub(crate) fn root(&mut self, prefixes: u64) -> Prefix {
        *self.roots.entry(prefixes).or_insert_with(|| {
            self.clock += 1;
            Prefix(self.clock)
        })
    }

    /// The prefix of [`PageAllocator::root`], if there is one.
    pub(crate) fn known_root(&self, prefixes: u64) -> Option<Prefix> {
        self.roots.get(&prefixes).copied()
    }

    /// The number of pages.
    pub(crate) fn count(&self) -> usize {
        self.pages.len()
    }

    /// The number of pages without an owner.
    pub(crate) fn available(&self) -> usize {
        self.free.len() + self.reusable.len()
    }

    /// A page with one owner and unspecified contents, or nothing if all have owners.
    pub(crate) fn allocate(&mut self) -> Option<u32> {
        let page = self.free.pop().or_else(|| {
            let (_, page) = self.reusable.pop_first()?;
            self.forget(page);
            Some(page)
        })?;
        self.pages[page as usize].references = 1;
        Some(page)
    }

    /// Adds an owner.
    pub(crate) fn share(&mut self, page: u32) {
        self.pages[page as usize].references += 1;
    }

    /// Whether a page has more than one owner and must be copied before it is written.
    pub(crate) fn is_shared(&self, page: u32) -> bool {
        self.pages[page as usize].references > 1
    }

    /// Takes an owner away.
    pub(crate) fn release(&mut self, page: u32) {
        let entry = &mut self.pages[page as usize];
        entry.references = entry.references.checked_sub(1).expect("invariant: only owners release");
        if entry.references > 0 {
            return;
        }
        if entry.key.is_none() {
            self.free.push(page);
            return;
        }
        self.clock += 1;
        entry.released = self.clock;
        self.reusable.insert(self.clock, page);
    }

    /// The page that holds `tokens` behind `parent`, with one more owner, and the prefix that ends with it.
    pub(crate) fn find(&mut self, parent: Prefix, tokens: &[u32; PAGE_TOKENS]) -> Option<(u32, Prefix)> {
        let &(page, prefix) = self.known.get(&(parent, *tokens))?;
        let entry = &mut self.pages[page as usize];
        if entry.references == 0 {
            self.reusable.remove(&entry.released);
        }
        entry.references += 1;
        Some((page, prefix))
    }

    /// The known pages that hold the beginning of these tokens behind `prefix`, in order, each with the prefix that ends
    /// with it; their owners stay as they are.
    pub(crate) fn known_pages(&self, prefix: Prefix, token_ids: &[u32]) -> impl Iterator<Item = (u32, Prefix)> {
        let next = move |prefix: &mut Prefix, tokens: &[u32; PAGE_TOKENS]| {
            let &(page, longer) = self.known.get(&(*prefix, *tokens))?;
            *prefix = longer;
            Some((page, longer))
        };
        token_ids.as_chunks().0.iter().scan(prefix, next)
    }

    /// Makes a full page known, and returns the prefix that ends with it. If another page with these tokens is known
    /// already, that one stays.
    pub(crate) fn remember(&mut self, parent: Prefix, tokens: &[u32; PAGE_TOKENS], page: u32) -> Prefix {
        if !self.prefix_cache {
            return parent;
        }
        let key = (parent, *tokens);
        if let Some(&(_, prefix)) = self.known.get(&key) {
            return prefix;
        }
        self.clock += 1;
        let prefix = Prefix(self.clock);
        self.known.insert(key, (page, prefix));
        self.pages[page as usize].key = Some(key);
        prefix
    }

    /// Drops the known contents of every page: they were computed with other weights.
    pub(crate) fn forget_all(&mut self) {
        self.known.clear();
        self.pages.iter_mut().for_each(|page| page.key = None);
        self.free.extend(std::mem::take(&mut self.reusable).into_values());
    }

    fn forget(&mut self, page: u32) {
        if let Some(key) = self.pages[page as usize].key.take() {
            self.known.remove(&key);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::hash_map::Entry;

    use proptest::prelude::*;

    use super::*;

    impl PageAllocator {
        /// Checks that every page is in exactly one place and has exactly the given number of owners.
        pub(crate) fn check(&self, owners: &HashMap<u32, u32>) {
            let mut places = vec![0; self.pages.len()];
            self.free.iter().chain(self.reusable.values()).for_each(|&page| places[page as usize] += 1);
            for (i, page) in self.pages.iter().enumerate() {
                let owned = owners.get(&(i as u32)).copied().unwrap_or(0);
                assert_eq!(page.references, owned, "owners of page {i}");
                assert_eq!(places[i], u32::from(owned == 0), "page {i} is in one place");
            }
            assert!(self.reusable.values().all(|&page| self.pages[page as usize].key.is_some()));
            assert!(self.free.iter().all(|&page| self.pages[page as usize].key.is_none()));
            assert!(self.known.iter().all(|(key, (page, _))| self.pages[*page as usize].key == Some(*key)));
        }

        /// Whether the prefix cache has this page.
        pub(crate) fn is_known(&self, page: u32) -> bool {
            self.pages[page as usize].key.is_some()
        }
    }

    #[derive(Clone, Debug)]
    enum Action {
        Allocate,
        Share(usize),
        Release(usize),
        Fill(usize, u32),
        Find(Vec<u32>),
        ForgetAll,
    }

    fn action() -> impl Strategy<Value = Action> {
        prop_oneof![
            6 => Just(Action::Allocate),
            2 => any::<usize>().prop_map(Action::Share),
            5 => any::<usize>().prop_map(Action::Release),
            5 => (any::<usize>(), 0..3u32).prop_map(|(which, token)| Action::Fill(which, token)),
            4 => prop::collection::vec(0..3u32, 1..4).prop_map(Action::Find),
            1 => Just(Action::ForgetAll),
        ]
    }

    proptest! {
        /// Against a plain model: a list of owners, and the tokens that were put into each page.
        #[test]
        fn no_page_leaks_is_used_twice_or_found_by_other_tokens(actions in prop::collection::vec(action(), 1..120)) {
            let mut pages = PageAllocator::new(7, MlaForm::Expanded, true);
            let mut owned: Vec<u32> = Vec::new();
            // One letter per page: the letters from the beginning of the sequence.
            let mut contents: HashMap<u32, Vec<u32>> = HashMap::new();
            let mut prefixes: HashMap<Vec<u32>, Prefix> = HashMap::from([(vec![], pages.root(0))]);
            for action in actions {
                match action {
                    Action::Allocate => match pages.allocate() {
                        Some(page) => {
                            prop_assert!(!owned.contains(&page));
                            contents.remove(&page);
                            owned.push(page);
                        }
                        None => prop_assert!((0..7).all(|page| owned.contains(&page))),
                    },
                    Action::Share(which) if !owned.is_empty() => {
                        let page = owned[which % owned.len()];
                        pages.share(page);
                        owned.push(page);
                    }
                    Action::Release(which) if !owned.is_empty() => {
                        let page = owned.swap_remove(which % owned.len());
                        pages.release(page);
                    }
                    Action::Fill(which, letter) if !owned.is_empty() => {
                        let page = owned[which % owned.len()];
                        if let Entry::Vacant(content) = contents.entry(page) {
                            // Continue the longest sequence that was remembered.
                            let before = prefixes.keys().max_by_key(|p| (p.len(), (*p).clone())).unwrap().clone();
                            let before = if before.len() > 2 { vec![] } else { before };
                            let prefix = pages.remember(prefixes[&before], &[letter; PAGE_TOKENS], page);
                            let whole = [before, vec![letter]].concat();
                            prefixes.insert(whole.clone(), prefix);
                            content.insert(whole);
                        }
                    }
                    Action::Find(letters) => {
                        let mut prefix = pages.root(0);
                        for i in 0..letters.len() {
                            let Some((page, next)) = pages.find(prefix, &[letters[i]; PAGE_TOKENS]) else { break };
                            owned.push(page);
                            prefix = next;
                            prop_assert_eq!(&contents[&page], &letters[..=i]);
                        }
                    }
                    Action::ForgetAll => {
                        pages.forget_all();
                        let root = pages.root(0);
                        prop_assert!(pages.find(root, &[0; PAGE_TOKENS]).is_none());
                        prefixes = HashMap::from([(vec![], pages.root(0))]);
                    }
                    Action::Share(_) | Action::Release(_) | Action::Fill(..) => {}
                }
                let mut owners = HashMap::new();
                owned.iter().for_each(|&page| *owners.entry(page).or_insert(0) += 1);
                pages.check(&owners);
                prop_assert_eq!(pages.available(), 7 - owners.len());
            }
            owned.drain(..).for_each(|page| pages.release(page));
            prop_assert_eq!(pages.available(), 7);
        }
    }

    #[test]
    fn the_longest_unused_page_is_given_up_first() {
        let mut pages = PageAllocator::new(3, MlaForm::Absorbed, true);
        let root = pages.root(0);
        let three: Vec<u32> = (0..3).map(|_| pages.allocate().unwrap()).collect();
        for (i, &page) in three.iter().enumerate() {
            pages.remember(root, &[i as u32; PAGE_TOKENS], page);
        }
        [1, 0, 2].into_iter().for_each(|i| pages.release(three[i]));
        let (again, _) = pages.find(root, &[1; PAGE_TOKENS]).unwrap();
        pages.release(again);
        let evicted: Vec<u32> = (0..3).map(|_| pages.allocate().unwrap()).collect();
        assert_eq!(evicted, [three[0], three[2], three[1]]);
        assert!(pages.allocate().is_none());
    }

    #[test]
    fn forms_share_nothing() {
        let root = |form| PageAllocator::new(1, form, true).root(0);
        assert_ne!(root(MlaForm::Expanded), root(MlaForm::Absorbed));
    }

    #[test]
    fn tenants_share_nothing() {
        let mut pages = PageAllocator::new(2, MlaForm::Absorbed, true);
        let (one, other) = (pages.root(1), pages.root(2));
        assert_eq!((one, other), (pages.root(1), pages.root(2)));
        let page = pages.allocate().unwrap();
        pages.remember(one, &[7; PAGE_TOKENS], page);
        pages.release(page);
        assert!(pages.find(other, &[7; PAGE_TOKENS]).is_none());
        assert!(pages.find(one, &[7; PAGE_TOKENS]).is_some());
    }
}
